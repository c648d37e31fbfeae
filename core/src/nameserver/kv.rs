use std::collections::BTreeMap;

use apogee_net::body::KvTable;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Entries of all namespaces. The only namespace in use, `ORDER_TOPIC_CONFIG`, has one per strictly ordered topic.
pub const KV_ENTRIES_MAX: usize = 1 << 16;

/// Names and values of all namespaces together: a namespace has to fit the frame of a reply, escaped.
pub const KV_BYTES_MAX: usize = 4 << 20;

/// The namespace that RocketMQ's brokers and clients know (`NamesrvUtil.NAMESPACE_ORDER_TOPIC_CONFIG`).
pub(super) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Names with values, by namespace: the only thing that a NameServer keeps over its own end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvConfig {
    /// No namespace is empty.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    entries: usize,
    bytes: usize,
    /// Something has changed since the last [`take_unsaved`](Self::take_unsaved).
    unsaved: bool,
}

/// `kvConfig.json`, in RocketMQ's form (`KVConfigSerializeWrapper`), so that its file can be taken over.
#[derive(Default, Serialize, Deserialize)]
struct KvFile {
    #[serde(rename = "configTable", default)]
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why the file cannot be used; somebody has to look at it.
#[derive(Debug, thiserror::Error)]
pub enum KvFileError {
    #[error("KV configuration: {0}")]
    Json(#[from] serde_json::Error),
    #[error("KV configuration: {0}")]
    Limit(#[from] KvError),
}

/// Why a KV request was not done.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("No config item, Namespace: {namespace} Key: {key}")]
    NoEntry { namespace: String, key: String },
    #[error("No config item, Namespace: {namespace}")]
    NoNamespace { namespace: String },
    #[error("there are {KV_ENTRIES_MAX} KV entries already")]
    TooManyEntries,
    #[error("names and values would take more than {KV_BYTES_MAX} bytes")]
    TooManyBytes,
}

impl KvConfig {
    /// What a file holds.
    pub fn from_file(json: &[u8]) -> Result<Self, KvFileError> {
        let KvFile { config_table } = serde_json::from_slice(json)?;
        let mut kv = Self::default();
        for (namespace, table) in &config_table {
            for (key, value) in table {
                kv.put(namespace, key, value)?;
            }
        }
        kv.unsaved = false;
        Ok(kv)
    }

    /// The whole file, if it has to be written anew.
    pub(super) fn take_unsaved(&mut self) -> Option<Bytes> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        let file = KvFile { config_table: self.namespaces.clone() };
        Some(serde_json::to_vec_pretty(&file).expect("maps of strings are always JSON").into())
    }

    pub(super) fn get(&self, namespace: &str, key: &str) -> Result<&str, KvError> {
        let value = self.namespaces.get(namespace).and_then(|table| table.get(key));
        value
            .map(String::as_str)
            .ok_or_else(|| KvError::NoEntry { namespace: namespace.to_owned(), key: key.to_owned() })
    }

    pub(super) fn namespace(&self, namespace: &str) -> Result<KvTable, KvError> {
        let table = self.namespaces.get(namespace).cloned();
        table
            .map(|table| KvTable { table })
            .ok_or_else(|| KvError::NoNamespace { namespace: namespace.to_owned() })
    }

    pub(super) fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        let replaced = self.get(namespace, key).ok().map(|old| entry_bytes(namespace, key, old));
        let entries = self.entries + usize::from(replaced.is_none());
        let bytes = self.bytes - replaced.unwrap_or(0) + entry_bytes(namespace, key, value);
        if entries > KV_ENTRIES_MAX {
            return Err(KvError::TooManyEntries);
        }
        if bytes > KV_BYTES_MAX {
            return Err(KvError::TooManyBytes);
        }
        self.namespaces.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        (self.entries, self.bytes, self.unsaved) = (entries, bytes, true);
        Ok(())
    }

    pub(super) fn delete(&mut self, namespace: &str, key: &str) {
        let Some(table) = self.namespaces.get_mut(namespace) else { return };
        let Some(value) = table.remove(key) else { return };
        if table.is_empty() {
            self.namespaces.remove(namespace);
        }
        self.entries -= 1;
        self.bytes -= entry_bytes(namespace, key, &value);
        self.unsaved = true;
    }
}

fn entry_bytes(namespace: &str, key: &str, value: &str) -> usize {
    namespace.len() + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_in_the_file_and_comes_back() {
        let mut kv = KvConfig::default();
        assert_eq!(kv.take_unsaved(), None);
        kv.put("N", "a", "1").unwrap();
        kv.put("N", "a", "\"zwei\"").unwrap();
        kv.put("M", "b", "3").unwrap();
        let file = kv.take_unsaved().expect("something changed");
        assert_eq!(kv.take_unsaved(), None);
        assert_eq!(KvConfig::from_file(&file).unwrap(), kv);
        assert_eq!(kv.get("N", "a").unwrap(), "\"zwei\"");
    }

    #[test]
    fn rocketmq_s_own_file_is_read() {
        let kv =
            KvConfig::from_file(br#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T":"broker-a:4"}}}"#).unwrap();
        assert_eq!(kv.get(ORDER_TOPIC_CONFIG, "T").unwrap(), "broker-a:4");
        assert!(KvConfig::from_file(br#"{"configTable":"#).is_err());
        assert_eq!(KvConfig::from_file(b"{}").unwrap(), KvConfig::default());
    }

    #[test]
    fn deleting_the_last_entry_deletes_the_namespace() {
        let mut kv = KvConfig::default();
        kv.put("N", "a", "1").unwrap();
        kv.delete("N", "a");
        assert!(matches!(kv.namespace("N"), Err(KvError::NoNamespace { .. })));
        assert_eq!((kv.entries, kv.bytes), (0, 0));
        assert!(kv.take_unsaved().is_some());
        kv.delete("N", "a");
        kv.delete("M", "a");
        assert_eq!(kv.take_unsaved(), None);
    }

    #[test]
    fn limits_refuse_new_entries_and_leave_the_old_ones() {
        let mut kv = KvConfig::default();
        let half = "x".repeat(KV_BYTES_MAX / 2 - 2);
        kv.put("N", "a", &half).unwrap();
        kv.put("N", "b", &half).unwrap();
        assert!(matches!(kv.put("N", "c", ""), Err(KvError::TooManyBytes)));
        assert!(matches!(kv.put("N", "b", &(half.clone() + "x")), Err(KvError::TooManyBytes)));
        kv.put("N", "b", "small").unwrap();
        for entry in 2..KV_ENTRIES_MAX {
            kv.put("N", &entry.to_string(), "").unwrap();
        }
        assert!(matches!(kv.put("N", "one more", ""), Err(KvError::TooManyEntries)));
        kv.put("N", "b", "an old one may change").unwrap();
    }
}
