//! The kernel's notation for sets of cpus: `0-3,8`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Highest cpu number accepted. Linux can be built for 8,192 cpus at most, so a higher one is a broken file,
/// and the bound keeps a range such as `0-4294967295` from filling memory.
pub const CPU_ID_MAX: u32 = 8_191;

/// Cpu numbers, ascending and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    #[error("cpu list: '{0}' is neither a number nor a range")]
    Malformed(String),
    #[error("cpu list: the range '{0}' ends before it begins")]
    Reversed(String),
    #[error("cpu list: cpu {0} is beyond {CPU_ID_MAX}, the highest a Linux kernel can have")]
    TooHigh(u32),
}

impl CpuList {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// The kernel's notation for masks: hexadecimal, groups of 32 cpus, the highest first: `3,00000001`.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let groups = self.0.last().map_or(1, |highest| highest / 32 + 1) as usize;
        let mut words = vec![0u32; groups];
        for cpu in self.iter() {
            words[cpu as usize / 32] |= 1 << (cpu % 32);
        }
        let mut mask = String::new();
        for word in words.iter().rev() {
            let text = if mask.is_empty() { format!("{word:x}") } else { format!(",{word:08x}") };
            mask.push_str(&text);
        }
        mask
    }

    /// The cpus of a mask; nothing if it is none.
    #[must_use]
    pub fn from_mask(mask: &str) -> Option<Self> {
        let words: Vec<&str> = mask.trim().split(',').collect();
        if words.len() > CPU_ID_MAX as usize / 32 + 1 {
            return None;
        }
        let mut cpus = Vec::new();
        for (nth, word) in words.iter().rev().enumerate() {
            let bits = u32::from_str_radix(word, 16).ok()?;
            cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| nth as u32 * 32 + bit));
        }
        Some(cpus.into_iter().collect())
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    /// Accepts what [`fmt::Display`] writes, in any order and with repetitions; an empty text is an empty list.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let number = |digits: &str, part: &str| {
            let cpu = digits.trim().parse().map_err(|_| CpuListError::Malformed(part.to_owned()))?;
            if cpu > CPU_ID_MAX { Err(CpuListError::TooHigh(cpu)) } else { Ok(cpu) }
        };
        let mut present = [false; CPU_ID_MAX as usize + 1];
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, part)?, number(last, part)?);
            if last < first {
                return Err(CpuListError::Reversed(part.to_owned()));
            }
            present[first as usize..=last as usize].fill(true);
        }
        Ok((0..=CPU_ID_MAX).filter(|&cpu| present[cpu as usize]).collect())
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (n, run) in runs.enumerate() {
            let separator = if n == 0 { "" } else { "," };
            match run {
                [only] => write!(f, "{separator}{only}")?,
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_and_numbers_are_read_in_any_order() {
        let cpus: CpuList = "8,0-2, 2-3\n".parse().unwrap();
        assert_eq!(cpus.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(cpus.to_string(), "0-3,8");
        assert!(cpus.contains(8) && !cpus.contains(4));
    }

    #[test]
    fn empty_text_is_an_empty_list() {
        assert!("\n".parse::<CpuList>().unwrap().is_empty());
    }

    #[test]
    fn broken_lists_say_what_is_wrong_with_them() {
        let error = |text: &str| text.parse::<CpuList>().unwrap_err();
        assert_eq!(error("0,a"), CpuListError::Malformed("a".into()));
        assert_eq!(error("0,,1"), CpuListError::Malformed("".into()));
        assert_eq!(error("3-1"), CpuListError::Reversed("3-1".into()));
        assert_eq!(error("0-4294967295"), CpuListError::TooHigh(u32::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::vec(0..=CPU_ID_MAX, 0..200)) {
            let list: CpuList = cpus.into_iter().collect();
            prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9,\\- a]{0,40}") {
            let _ = text.parse::<CpuList>();
        }
    }
}
