//! CPUs as the kernel lists them: numbers and ranges, separated by commas.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuList(pub(super) Vec<usize>);

/// More than any machine has; a longer list is a mistake.
const CPUS_MAX: usize = 4096;

pub(super) fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("'{text}' is no CPU number"));
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= CPUS_MAX {
            return Err(format!("'{part}' is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    let mut unique = cpus.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() < cpus.len() {
        return Err("a CPU is named twice".to_owned());
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_like_the_kernels() {
        assert_eq!(parse_cpus("1"), Ok(CpuList(vec![1])));
        assert_eq!(parse_cpus("2-4,0"), Ok(CpuList(vec![2, 3, 4, 0])));
        for wrong in ["", "a", "3-1", "1,1", "0-9999999", "-"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
