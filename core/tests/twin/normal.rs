//! Makes equal what may differ between two runs of the same thing: addresses, ids, times, decimals.

use crate::side::Side;

/// How closely lines are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Detail {
    /// All but what differs between two runs.
    Exact,
    /// Numbers are made equal.
    Shape,
    /// Only what names a value: text before the first `:` or `=`, numbers made equal.
    Keys,
}

/// Where errors refer to, in the server's words or the client's.
const FAQ: &str = "https://rocketmq.apache.org/docs/bestPractice/06FAQ";
/// Positions in a log and memory addresses: small numbers that mean nothing to anybody else.
const PLACES: &[&str] = &[
    "commitLogOffset=",
    "CommitLog Offset:",
    "storeSize=",
    "physicOffset=",
    "physicSize=",
    "spentTimeMills=",
];
/// Whole numbers of so many digits are times or positions.
const LONG_NUMBER_DIGITS: usize = 9;
/// Runs of so many hexadecimal digits are ids of messages.
const ID_DIGITS: usize = 24;
/// Java's hash of an object has eight, but leading zeros.
const OBJECT_DIGITS: usize = 5;

pub(crate) fn lines(text: &str, side: &Side, detail: Detail) -> Vec<String> {
    let work = side.work.display().to_string();
    let text = text
        .replace(&side.ports.namesrv.to_string(), "NAMESRV")
        .replace(&side.ports.broker.to_string(), "BROKER")
        .replace(&work, "WORK")
        // Several of which some commands print in one line, in any order.
        .replace("]MessageTrack [", "]\nMessageTrack [");
    text.lines()
        // Where in the tools an exception passed says nothing about the server.
        // Nor does the page that an error refers to.
        .filter(|line| !line.contains(FAQ))
        .filter(|line| !line.starts_with("\tat ") && !line.starts_with("\t... ") && !is_of_thread_dump(line))
        .map(|line| squeeze(&tokens(line, detail)))
        .map(|line| if detail == Detail::Keys { key(&line) } else { line })
        .filter(|line| !line.is_empty())
        .collect()
}

/// A consumer's threads are as they are at the moment.
fn is_of_thread_dump(line: &str) -> bool {
    ["TID: ", " app//", " java.base@"].iter().any(|part| line.contains(part))
}

fn key(line: &str) -> String {
    line.split([':', '=']).next().unwrap_or_default().trim().to_owned()
}

/// One blank for any number of them: columns are as wide as what is in them.
fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn tokens(line: &str, detail: Detail) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if let Some(place) = PLACES.iter().find(|place| rest.starts_with(**place)) {
            out.push_str(place);
            rest = rest[place.len()..].trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
            out.push('N');
            continue;
        }
        // Java's names of objects and of classes without a name.
        if let Some(name) = rest.strip_prefix("$$Lambda") {
            out.push_str("$$Lambda");
            rest = &name[run(name, |c| c.is_ascii_alphanumeric() || c == '$' || c == '/')..];
            continue;
        }
        if let Some(name) = rest.strip_prefix('@') {
            let object = run(name, |c| c.is_ascii_hexdigit());
            if object >= OBJECT_DIGITS && !name[object..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
                out.push_str(if detail == Detail::Exact { "@OBJECT" } else { "@N" });
                rest = &name[object..];
                continue;
            }
        }
        let inside_word = out.ends_with(|c: char| c.is_ascii_alphanumeric());
        let id = run(rest, |c| c.is_ascii_hexdigit());
        if !inside_word && id >= ID_DIGITS {
            out.push_str("ID");
            rest = &rest[id..];
        } else if first.is_ascii_digit() {
            let (word, len) = number(rest, detail);
            out.push_str(&word);
            rest = &rest[len..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// What a text that starts with a digit reads like, and how long that is.
fn number(text: &str, detail: Detail) -> (String, usize) {
    if let Some(len) = moment(text) {
        return ("TIME".to_owned(), len);
    }
    let len = run(text, |c| c.is_ascii_digit() || c == '.');
    // A full stop after a number is none of it.
    let digits = text[..len].trim_end_matches('.');
    let len = digits.len();
    match digits.matches('.').count() {
        3 => {
            let port = text[len..].strip_prefix(':').map_or(0, |port| run(port, |c| c.is_ascii_digit()));
            if port > 0 { ("ADDRESS".to_owned(), len + 1 + port) } else { ("IP".to_owned(), len) }
        }
        0 if detail == Detail::Exact && len < LONG_NUMBER_DIGITS => (digits.to_owned(), len),
        0 => ("N".to_owned(), len),
        _ => {
            let exponent = text[len..].strip_prefix("E-").map_or(0, |e| run(e, |c| c.is_ascii_digit()));
            ("D".to_owned(), if exponent > 0 { len + 2 + exponent } else { len })
        }
    }
}

/// `2026-11-22 23:41:39`, with parts of a second or without, and `2026-11-22`.
fn moment(text: &str) -> Option<usize> {
    let shaped = |text: &str, shape: &str| {
        text.len() >= shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    if !shaped(text, "0000-00-00") {
        return None;
    }
    let Some(after) = ["0000-00-00 00:00:00", "0000-00-00#00:00:00", "0000-00-00T00:00:00"]
        .iter()
        .find(|shape| shaped(text, shape))
    else {
        return Some("0000-00-00".len());
    };
    let fraction = text[after.len()..]
        .strip_prefix([',', ':', '.'])
        .map_or(0, |digits| run(digits, |c| c.is_ascii_digit()));
    Some(after.len() + if fraction > 0 { 1 + fraction } else { 0 })
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_runs_is_made_equal_and_nothing_else() {
        for (line, exact) in [
            ("broker-a-0  3   1795390898340", "broker-a-0 3 N"),
            ("rt=39.00 at 2026-11-22 23:41:39,123.", "rt=D at TIME."),
            ("2026-11-22#23:41:39:001 2026-11-22", "TIME TIME"),
            ("from /172.17.0.2:51234 (172.17.0.2@x)", "from /ADDRESS (IP@x)"),
            ("FD000000000000000000000000000002207F4E0E2F2A713B1AA50000 V5_5_0", "ID V5_5_0"),
            ("a.B$$Lambda$12/0x3f@1b2c3d4 x@y", "a.B$$Lambda@OBJECT x@y"),
            ("1.2E-4 commitLogOffset=12, queueOffset=2", "D commitLogOffset=N, queueOffset=2"),
        ] {
            assert_eq!(squeeze(&tokens(line, Detail::Exact)), exact);
        }
        assert_eq!(tokens("V5_5_0 x 17", Detail::Shape), "VN_N_N x N");
        assert_eq!(key("bootTimestamp : N"), "bootTimestamp");
    }
}
