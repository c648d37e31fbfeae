//! Every key of a scenario file, with what may stand there.
//!
//! The one list from which errors, `apogee-loadgen scenario keys` and the README's table are made; a test holds it
//! against the types.

/// A key, its tables joined by dots; the entries of a list share theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub path: &'static str,
    /// The flag that sets it, if there is one; all others are set by `--set`.
    pub flag: &'static str,
    /// What may stand there.
    pub expected: &'static str,
    /// What holds if it is left out.
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn key(
    path: &'static str,
    flag: &'static str,
    expected: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { path, flag, expected, default, meaning }
}

/// All keys, in the order of the file.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("name", "", "text", "", "shown in reports"),
    key("description", "", "text", "", "what the scenario shows and what to look at"),
    key("target.namesrv", "--namesrv", "list of host:port", "127.0.0.1:9876", "NameServers; the first that answers is used"),
    key("target.brokers", "--brokers", "list of names", "all", "only these brokers"),
    key("target.route_interval", "--route-interval", "a time, in quotes", "30s", "how often the route is asked for again while all is well"),
    key("target.header", "--binary-header", "json or binary, in quotes", "json", "form of requests' headers"),
    key("target.tls.ca", "--tls-ca", "a path", "any certificate is believed", "certificates, one of which must have signed the servers'; an empty table `[target.tls]` (--tls) is TLS too"),
    key("target.tls.server_name", "--tls-server-name", "text", "", "name that the servers' certificates must be for"),
    key("target.tls.certificate", "--tls-cert", "a path", "", "the generator's own certificate"),
    key("target.tls.key", "--tls-key", "a path", "", "the key to it"),
    key("target.acl.access_key", "--access-key", "text", "requests are not signed", "the user in whose name requests are signed"),
    key("target.acl.secret_key", "--secret-key", "text", "", "the user's secret; never in reports"),
    key("target.acl.security_token", "--security-token", "text", "", "comes with temporary keys"),
    key("topics.name", "--topic", "text", "apogee-loadgen", "the topic, or the beginning of their names"),
    key("topics.count", "--topics", "1 to 100000", "1", "topics; of several, -0, -1, … is added to the name"),
    key("topics.queues", "--queues", "1 to 4096", "4", "queues of each topic on each broker"),
    key("load.kind", "", "constant, poisson, bursts, ramp, steps, trace or closed, in quotes", "constant", "how messages are offered; all but `closed` are open loops, sent whatever the broker does"),
    key("load.rate", "--rate", "messages per second", "1000", "kinds constant (--constant), poisson (--poisson), bursts: planned rate over all queues, on average"),
    key("load.seed", "", "a number", "0", "kind poisson: the same arrivals for the same seed"),
    key("load.on", "--bursts", "a time like \"10ms\"", "", "kind bursts: part of the period in which all its messages are due"),
    key("load.off", "--bursts", "a time like \"90ms\"", "", "kind bursts: rest of the period"),
    key("load.from", "--ramp", "messages per second", "", "kind ramp: rate at the beginning of the measured part"),
    key("load.to", "--ramp", "messages per second", "", "kind ramp: rate at its end"),
    key("load.rates", "--steps", "list of messages per second", "", "kind steps: one after the other, each for an equal length"),
    key("load.file", "--trace", "a path", "", "kind trace: arrivals, one a line, in seconds"),
    key("load.speed", "", "a number", "1.0", "kind trace: so many times as fast as recorded"),
    key("load.depth", "--closed-loop", "1 to 4096", "", "kind closed: requests kept in flight on each connection"),
    key("messages.size", "--size", "bytes, or { min = bytes, max = bytes }, or [{ bytes = bytes, weight = share }, …]; 44 to 4194304 bytes", "1024", "size of a body: fixed, evenly spread, or several in proportion to their weights"),
    key("messages.size.min", "--size", "bytes", "", "smallest of evenly spread sizes"),
    key("messages.size.max", "--size", "bytes", "", "largest of evenly spread sizes"),
    key("messages.size.bytes", "--size", "bytes", "", "one of several sizes"),
    key("messages.size.weight", "--size", "a number", "", "how often it comes, compared with the others"),
    key("messages.kind", "--kind", "normal or oneway in quotes, or { ordered = … }, { delayed = … }, { timed = … }, { transactional = … }", "normal", "what the broker is asked to do with a message"),
    key("messages.kind.ordered.keys", "--kind", "1 to 4096", "", "keys of a queue; of each, one message is under way at a time"),
    key("messages.kind.delayed.level", "--kind", "1 to 18", "", "deliver after the delay of this level: 1s 5s 10s 30s 1m …"),
    key("messages.kind.timed.after", "--kind", "a time like \"2s\"", "", "deliver so long after the planned time"),
    key("messages.kind.timed.relative", "", "true or false", "false", "ask for a delay instead of a point in time"),
    key("messages.kind.timed.early_max", "", "a time like \"1s\"", "1s", "a delivery earlier than this before its time is a fault"),
    key("messages.kind.transactional.rollback", "--kind", "0 to 100", "0", "of a hundred messages so many are rolled back"),
    key("messages.kind.transactional.check", "", "0 to 100", "0", "of a hundred messages so many are left to the broker's question"),
    key("messages.kind.transactional.reply", "", "true or false", "false", "ask for a reply to commit and rollback"),
    key("messages.batch", "--batch", "1 to 1024", "1", "messages per request"),
    key("messages.tags", "--tags", "list of texts", "none", "tags that messages take in turn"),
    key("messages.keys", "", "true or false", "false", "give each message a key that brokers index"),
    key("messages.prefill", "--prefill", "a number", "0", "messages written unmeasured before the run; consumers with from = \"start\" find them"),
    key("producers.connections", "--connections", "1 to 16384", "1", "publishing connections per broker and thread"),
    key("producers.heartbeat", "", "true or false", "false", "every connection says who it is, as stock producers do"),
    key("producers.in_flight_max", "--in-flight-max", "a number", "48 MiB of bodies, at most 100000", "unanswered messages per thread; what is due beyond counts as an error"),
    key("producers.timeout", "--send-timeout", "a time like \"3s\"", "3s", "how long the reply to a message is awaited"),
    key("producers.retry", "--retry", "0 to 16", "0", "how often a message that one broker did not take is tried with the next; kind normal, no batches, no pop"),
    key("consumers.group", "", "text", "apogee-loadgen", "a consumer group; each entry of the list gets all messages, none (`consumers = []`, --no-consume): nothing is received"),
    key("consumers.groups", "--groups", "1 to 1024", "1", "groups like this one; of several, -0, -1, … is added to the name"),
    key("consumers.by", "--pop", "pull or pop, in quotes", "pull", "how messages are fetched; pop needs a 5.x broker"),
    key("consumers.filter", "--filter-tags", "{ tags = … } or { sql = … }", "none", "which messages the group wants; evaluated by the broker"),
    key("consumers.filter.tags", "--filter-tags", "text like \"A || B\"", "", "messages with one of these tags"),
    key("consumers.filter.sql.expression", "", "text like \"n < 10\"", "", "SQL92; every message has n, its number in its queue modulo 100"),
    key("consumers.filter.sql.expect_below", "", "0 to 100", "", "the expression is expected to match the messages with n below this, and no others"),
    key("consumers.from", "", "end or start, in quotes", "end", "where the group begins to read"),
    key("consumers.join", "", "a time like \"10s\"", "0s", "begins to read so long after the run began"),
    key("consumers.pause", "", "a time like \"1ms\"", "0s", "work on each message, during which its queue's reader does nothing else"),
    key("consumers.messages", "", "1 to 1024, by pop to 32", "128, by pop 32", "messages asked for at once"),
    key("consumers.commit", "", "a time like \"5s\"", "never", "readers by pull store their progress so often with the broker"),
    key("consumers.invisible", "", "a time like \"60s\"", "60s", "popped messages come again if not acknowledged by then"),
    key("consumers.ack", "", "each or batch, in quotes", "each", "how popped messages are acknowledged"),
    key("run.duration", "--duration", "a time like \"30s\"", "30s", "length of the measured part"),
    key("run.warmup", "--warmup", "a time like \"2s\"", "2s", "sent before it, not measured"),
    key("run.drain", "--drain-timeout", "a time like \"10s\"", "10s", "how long is waited at the end for what is outstanding"),
    key("run.interval", "--interval", "a time like \"1s\", from 1ms", "1s", "length of the intervals in which the run is shown over time"),
    key("run.threads", "--threads", "1 to 256", "half of the CPUs, or as many as `cpus` names", "threads of the generator"),
    key("run.cpus", "--pin", "list of CPU numbers", "left to the kernel", "CPU of each thread"),
    key("run.broker_pid", "--broker-pid", "a number", "who listens at its address, on this machine", "process whose CPU and memory are the broker's"),
];

/// Whether `path` is a key or a table of keys.
pub fn is_known(path: &str) -> bool {
    KEYS.iter().any(|key| key.path == path || is_within(key.path, path))
}

pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The known key most like `path`, if any is so like it that it may have been meant.
pub fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let wrong_last = path.rsplit('.').next().unwrap_or(path);
    let tables = KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(table, _)| table);
    let candidates = KEYS.iter().map(|key| key.path).chain(tables);
    candidates
        // The right word in the wrong table is a likely mistake too.
        .map(|known| (distance(known, path).min(distance(last(known), wrong_last) + 1), known))
        .filter(|(distance, _)| *distance <= 1 + wrong_last.len() / 4)
        .min_by_key(|(distance, known)| (*distance, known.len()))
        .map(|(_, known)| known)
}

fn is_within(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// Characters to insert, delete or replace to make one text of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (at, right) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = std::mem::replace(&mut row[at + 1], 0);
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[other.len()]
}

/// The keys as a Markdown table.
pub fn markdown() -> String {
    let mut out = String::from("| key | flag | values | default | |\n|---|---|---|---|---|\n");
    for Key { path, flag, expected, default, meaning } in KEYS {
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let expected = expected.replace('|', "\\|");
        out += &format!("| {} | {} | {expected} | {default} | {meaning} |\n", code(path), code(flag));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Scenario;
    use super::*;

    /// Within these any of several forms may stand, of which serde says nothing.
    const UNTAGGED: [&str; 4] =
        ["messages.size.min", "messages.size.max", "messages.size.bytes", "messages.size.weight"];

    /// What serde says it would have taken in place of an unknown key, table by table. A key that is in the types
    /// and not in the list, or the other way round, is a difference.
    #[test]
    fn the_list_has_the_keys_of_the_types() {
        let mut from_types: BTreeSet<String> = UNTAGGED.iter().map(|key| (*key).to_owned()).collect();
        let mut tables = vec![String::new()];
        while let Some(table) = tables.pop() {
            for key in keys_of_table(&table) {
                let path = if table.is_empty() { key } else { format!("{table}.{key}") };
                let forms = names_after(&complaint(&path, None), "unknown variant `nobody`, ");
                let with_figures: Vec<_> = forms.iter().filter(|form| !is_plain(&path, form)).collect();
                if !keys_of_table(&path).is_empty() {
                    tables.push(path.clone());
                } else if with_figures.is_empty() {
                    from_types.insert(path.clone());
                }
                // One of several forms: a table with keys of its own, or a value.
                for form in with_figures {
                    let form = format!("{path}.{form}");
                    if keys_of_table(&form).is_empty() {
                        from_types.insert(form);
                    } else {
                        tables.push(form);
                    }
                }
            }
        }
        let leaves: Vec<String> = from_types.iter().cloned().collect();
        for leaf in leaves {
            // Where a text may stand as well as a table, or several tables, the table itself is in the list.
            let parents = leaf.match_indices('.').map(|(at, _)| leaf[..at].to_owned());
            from_types.extend(parents.filter(|parent| find(parent).is_some()));
        }
        let listed: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        let missing: Vec<_> = from_types.difference(&listed).collect();
        let stale: Vec<_> = listed.difference(&from_types).collect();
        assert!(missing.is_empty() && stale.is_empty(), "add to KEYS {missing:?}; remove from it {stale:?}");
        assert_eq!(listed.len(), KEYS.len(), "a key is listed twice");
    }

    /// What serde says to a key that nobody has, in a table of that kind.
    fn complaint(table: &str, kind: Option<&str>) -> String {
        let kind = kind.map(|kind| format!("kind = '{kind}'\n")).unwrap_or_default();
        let text = format!("{}{kind}nobody = 1", header(table));
        toml::from_str::<Scenario>(&text).expect_err("a key that nobody has").to_string()
    }

    fn header(table: &str) -> String {
        match table.split_once('.') {
            _ if table.is_empty() => String::new(),
            None if table == "consumers" => "[[consumers]]\n".to_owned(),
            Some(("consumers", within)) => format!("[[consumers]]\n[consumers.{within}]\n"),
            _ => format!("[{table}]\n"),
        }
    }

    /// Whether the key may be this text.
    fn is_plain(path: &str, text: &str) -> bool {
        let (table, key) = path.rsplit_once('.').expect("no enum stands outside all tables");
        toml::from_str::<Scenario>(&format!("{}{key} = '{text}'", header(table))).is_ok()
    }

    /// The quoted names that follow.
    fn names_after(complaint: &str, introduction: &str) -> BTreeSet<String> {
        let names = complaint.split_once(introduction).map(|(_, names)| names).unwrap_or_default();
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn keys_of_table(table: &str) -> BTreeSet<String> {
        // Its keys may depend on its kind.
        let kinds = names_after(&complaint(table, Some("nothing")), "unknown variant `nothing`, ");
        if kinds.is_empty() {
            let complaint = complaint(table, None);
            // TOML's own words, where serde does not come to its own.
            let available =
                complaint.split_once("available keys: ").map(|(_, keys)| keys).unwrap_or_default();
            let available =
                available.split(", ").map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
            return names_after(&complaint, "unknown field `nobody`, ")
                .into_iter()
                .chain(available)
                .collect();
        }
        let of_kind = |kind: &String| names_after(&complaint(table, Some(kind)), "unknown field `nobody`, ");
        kinds.iter().flat_map(of_kind).chain(["kind".to_owned()]).collect()
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let table = [
            ("topcs", Some("topics")),
            ("load.rat", Some("load.rate")),
            ("topics.queue", Some("topics.queues")),
            ("duration", Some("run.duration")),
            ("messages.rate", Some("load.rate")),
            ("entirely.else", None),
        ];
        for (wrong, right) in table {
            assert_eq!(nearest(wrong), right, "{wrong}");
        }
    }

    #[test]
    fn distances_are_levenshteins() {
        let table =
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("rate", "rat", 1), ("ab", "ba", 2)];
        for (one, other, expected) in table {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
