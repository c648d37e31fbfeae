//! The ready-made scenarios of `loadgen/scenarios/`, inside the program.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyMade {
    pub name: &'static str,
    /// The file as it stands in the folder.
    pub text: &'static str,
}

macro_rules! ready_made {
    ($($name:literal)*) => {
        &[$(ReadyMade { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),*]
    };
}

/// In the order in which one would look at them.
pub const READY_MADE: &[ReadyMade] = ready_made![
    "steady"
    "saturation"
    "poisson"
    "bursts"
    "ramp"
    "publish-only"
    "fan-out"
    "slow-consumer"
    "catch-up"
    "many-topics"
    "many-producers"
    "large-messages"
    "mixed-sizes"
    "batches"
    "filter"
    "ordered"
    "delayed"
    "timed"
    "transactions"
    "pop"
    "failover"
    "tls-acl"
];

pub fn find(name: &str) -> Option<&'static ReadyMade> {
    READY_MADE.iter().find(|scenario| scenario.name == name)
}

pub fn names() -> Vec<&'static str> {
    READY_MADE.iter().map(|scenario| scenario.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_ready_made_scenario_can_be_run_and_says_what_it_shows() {
        for ReadyMade { name, text } in READY_MADE {
            let scenario = Scenario::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.check(), Ok(()), "{name}");
            assert_eq!(scenario.name, *name);
            assert!(scenario.description.contains("Look at"), "{name} does not say what to look at");
            let mut again = Scenario::parse(name, &scenario.to_toml()).unwrap();
            // A secret is read but never written.
            if let (Some(acl), Some(original)) = (&mut again.target.acl, &scenario.target.acl) {
                acl.secret_key.clone_from(&original.secret_key);
            }
            assert_eq!(again, scenario, "{name}");
        }
    }

    #[test]
    fn the_folder_holds_these_and_no_others() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|file| file.strip_suffix(".toml").map(str::to_owned))
            .collect();
        files.sort();
        let mut embedded = names();
        embedded.sort();
        assert_eq!(files, embedded);
    }
}
