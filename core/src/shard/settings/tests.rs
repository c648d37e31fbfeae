use super::*;

const NOW: i64 = 1_700_000_000_000;

fn wanted(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn fixed(name: &str) -> Option<String> {
    (name == "flushDiskType").then(|| "SYNC_FLUSH".to_owned())
}

fn update(settings: &Settings, pairs: &[(&str, &str)]) -> Result<Update, SettingsError> {
    settings.updated(&wanted(pairs), fixed)
}

#[test]
fn all_of_an_update_is_done_or_nothing() {
    let settings = Settings::default();
    let done =
        update(&settings, &[("brokerPermission", "4"), ("noSuchKey", "1"), ("traceOn", "false")]).unwrap();
    assert_eq!((done.settings.broker_perm, done.settings.trace_on), (4, false));
    assert_eq!(done.unknown, ["noSuchKey"]);
    for (pairs, expected) in [
        (&[("traceOn", "false"), ("rocketmqHome", "/")][..], "Can not update config in black list."),
        (&[("brokerPermission", "8")], "brokerPermission = \"8\": expected 0 to 7"),
        (&[("fileReservedTime", "soon")], "fileReservedTime = \"soon\": expected 1 to 876000 hours"),
        (&[("flushDiskType", "ASYNC_FLUSH")], "flushDiskType cannot be changed while the broker runs"),
    ] {
        assert_eq!(update(&settings, pairs).unwrap_err().to_string(), expected);
    }
    assert!(update(&settings, &[("flushDiskType", "SYNC_FLUSH")]).is_ok(), "it is so already");
}

#[test]
fn what_was_changed_counts_more_than_the_file_until_it_is_changed_back() {
    let file = Settings { file_reserved_hours: 48, ..Settings::default() };
    let mut table = SettingsTable::default();
    let changed = update(&file, &[("fileReservedTime", "24"), ("autoCreateTopicEnable", "false")]).unwrap();
    let record = table.update(&file, &changed.settings, NOW).expect("a change");
    assert_eq!(table.update(&file, &changed.settings, NOW), None);
    assert_eq!(table.version(), DataVersion { counter: 1, state_version: 0, timestamp: NOW });

    let mut rebuilt = SettingsTable::default();
    rebuilt.apply(&ControlRecord::decode(&record.encode()).unwrap());
    assert_eq!(rebuilt, table);
    assert_eq!(rebuilt.in_force(&file), changed.settings);
    assert_eq!(table.snapshot().collect::<Vec<_>>(), [record]);

    let back = update(&changed.settings, &[("fileReservedTime", "48")]).unwrap();
    table.update(&file, &back.settings, NOW).expect("a change");
    let other_file = Settings { file_reserved_hours: 12, ..file };
    assert_eq!(table.in_force(&other_file).file_reserved_hours, 12);
    assert!(!table.in_force(&other_file).auto_create_topic);
    assert_eq!(SettingsTable::default().snapshot().count(), 0);
}

#[test]
fn a_logged_setting_that_is_unknown_or_impossible_is_passed_over() {
    let changed = [("of a newer version", "x"), ("brokerPermission", "99"), ("traceOn", "false")];
    let changed = changed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut table = SettingsTable::default();
    let version = DataVersion { counter: 1, ..DataVersion::default() };
    table.apply(&ControlRecord::BrokerSettings(SettingsRecord { version, changed }));
    let expected = Settings { trace_on: false, ..Settings::default() };
    assert_eq!(table.in_force(&Settings::default()), expected);
}
