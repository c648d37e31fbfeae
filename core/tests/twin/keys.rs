//! What a JSON body is made of: the paths of its members and the kinds of their values.
//!
//! Reads fastjson text: keys may be numbers without quotes, or objects. Only as strict as it takes to get through.

use std::collections::BTreeSet;

/// Members whose value is a map: their keys are data, not names of members.
const MAPS: &[&str] = &[
    "topicConfigTable",
    "subscriptionGroupTable",
    "forbiddenTable",
    "topicQueueMappingInfoMap",
    "topicQueueMappingDetailMap",
    "offsetTable",
    "brokerAddrTable",
    "clusterAddrTable",
    "brokerAddrs",
    "subscriptionTable",
    "producerTable",
    "data",
    "table",
    "kvTable",
    "correctionOffsets",
    "consumerTable",
    "messageRequestModeMap",
    "pullStatsTable",
    "delayLevelTable",
    "offsets",
    "timingCount",
    "filterServerTable",
    "attributes",
    "groupTopicMap",
    "consumeStatsList",
];

/// What a broker does for itself, when it comes to it.
const INTERNAL: &str = "RMQ_SYS";

/// `members.of.paths kind`, sorted, each once; or nothing if the text is no JSON. A key of a map is shown as data.
pub(crate) fn of(text: &str) -> Option<BTreeSet<String>> {
    let mut walk = Walk { text, at: 0, found: BTreeSet::new() };
    walk.value("", false)?;
    walk.skip_blanks();
    (walk.at == text.len()).then_some(walk.found)
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    found: BTreeSet<String>,
}

impl Walk<'_> {
    fn value(&mut self, path: &str, map: bool) -> Option<()> {
        self.skip_blanks();
        match self.peek()? {
            b'{' => self.object(path, map),
            b'[' => self.array(path, map),
            b'"' => {
                self.string()?;
                self.note(path, "text");
                Some(())
            }
            _ => {
                let word = self.bare()?;
                let kind = match word {
                    "true" | "false" => "truth",
                    "null" => "null",
                    number if number.parse::<f64>().is_ok() => "number",
                    _ => return None,
                };
                self.note(path, kind);
                Some(())
            }
        }
    }

    fn object(&mut self, path: &str, map: bool) -> Option<()> {
        self.at += 1;
        self.note(path, if map { "map" } else { "object" });
        loop {
            self.skip_blanks();
            match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                b',' => self.at += 1,
                _ => self.member(path, map)?,
            }
        }
    }

    fn member(&mut self, path: &str, map: bool) -> Option<()> {
        let key = match self.peek()? {
            b'"' => self.string()?,
            // A message queue as a key: its members are part of the map's shape.
            b'{' => {
                self.value(&format!("{path}.<key>"), false)?;
                "{}".to_owned()
            }
            _ => self.bare()?.to_owned(),
        };
        self.skip_blanks();
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        if !map {
            return self.value(&format!("{path}.{key}"), MAPS.contains(&key.as_str()));
        }
        if key != "{}" && !key.contains(INTERNAL) {
            self.found.insert(format!("{path} has {key}"));
        }
        // Maps of maps there are some: a topic's offsets by queue, for instance.
        let numbers = self.numeric_keys_follow();
        self.value(&format!("{path}.*"), numbers)
    }

    /// Whether an object follows whose first key is a bare number, hence a map.
    fn numeric_keys_follow(&mut self) -> bool {
        self.skip_blanks();
        let mut rest = self.text[self.at..].bytes();
        rest.next() == Some(b'{') && rest.next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'{')
    }

    /// In a list that stands for a map, every element is one.
    fn array(&mut self, path: &str, map: bool) -> Option<()> {
        self.at += 1;
        self.note(path, "list");
        loop {
            self.skip_blanks();
            match self.peek()? {
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                b',' => self.at += 1,
                _ => self.value(&format!("{path}[]"), map)?,
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut end = self.at + 1;
        let bytes = self.text.as_bytes();
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let string = self.text.get(self.at + 1..end)?.to_owned();
        self.at = end + 1;
        Some(string)
    }

    fn bare(&mut self) -> Option<&str> {
        let rest = &self.text[self.at..];
        let len = rest.find([',', ':', '}', ']', '{', '[', '"', ' ', '\n', '\t']).unwrap_or(rest.len());
        self.at += len;
        (len > 0).then(|| &rest[..len])
    }

    fn note(&mut self, path: &str, kind: &str) {
        self.found.insert(format!("{} {kind}", if path.is_empty() { "." } else { path }));
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        of(text).expect("JSON").into_iter().collect()
    }

    #[test]
    fn members_are_paths_and_keys_of_maps_are_data() {
        assert_eq!(
            keys(r#"{"offsetTable":{{"queueId":0}:{"o":1},{"queueId":1}:{"o":2}},"ok":true,"none":[]}"#),
            [
                ". object",
                ".none list",
                ".offsetTable map",
                ".offsetTable.* object",
                ".offsetTable.*.o number",
                ".offsetTable.<key> object",
                ".offsetTable.<key>.queueId number",
                ".ok truth",
            ]
        );
        assert_eq!(
            keys(r#"{"brokerAddrs":{0:"a"}}"#),
            [". object", ".brokerAddrs has 0", ".brokerAddrs map", ".brokerAddrs.* text"]
        );
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in ["", "a=b", "{", "{\"a\":1}x", "[1"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
