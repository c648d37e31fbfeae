//! Names with values.

use std::collections::BTreeMap;

use super::fastjson::body;

body! {
    /// `KVTable`: a namespace of the NameServer's KV configuration (219, 103), a broker's runtime facts (28).
    #[derive(Eq)]
    pub struct KvTable {
        "table" => table: BTreeMap<String, String>,
    }
}
