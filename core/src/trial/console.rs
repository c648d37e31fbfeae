//! What can be typed while the cluster runs.

pub(super) const HELP: &str = "status | kill N | stop N | pause N | resume N | start N | quit     (N: node 1, 2 …; n1, n2 … a NameServer)";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Status,
    Help,
    Quit,
    Member(Action, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// At once, as by loss of power but for the disk.
    Kill,
    /// In order: it hands over what it leads.
    Stop,
    /// It hangs: connections stay, nothing is answered.
    Pause,
    Resume,
    Start,
}

/// Reads a line; an empty one means nothing.
pub(super) fn parse(line: &str) -> Result<Option<Order>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let action = |word: &str| {
        Some(match word {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "pause" => Action::Pause,
            "resume" => Action::Resume,
            "start" => Action::Start,
            _ => return None,
        })
    };
    Ok(match words[..] {
        [] => None,
        ["status"] => Some(Order::Status),
        ["help" | "?"] => Some(Order::Help),
        ["quit" | "exit"] => Some(Order::Quit),
        [verb, member] if action(verb).is_some() => {
            action(verb).map(|action| Order::Member(action, member.to_owned()))
        }
        [verb] if action(verb).is_some() => return Err(format!("{verb} whom?")),
        _ => return Err(format!("{line:?} is not understood")),
    })
}
