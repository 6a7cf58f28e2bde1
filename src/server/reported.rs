//! The parameters that a server reports (manual, section "Asynchronous Operations"), shared
//! between the many connections for which they are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Names and values as ParameterStatus gave them. Cloning shares; changing one copy unshares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    values: Arc<BTreeMap<Box<str>, Box<str>>>,
}

impl Reported {
    /// Takes a report in; true if it says anything new.
    pub fn update(&mut self, name: &[u8], value: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        let value = String::from_utf8_lossy(value);
        if self.get(&name) == Some(&value) {
            return false;
        }
        let values = Arc::make_mut(&mut self.values);
        values.insert(name.into_owned().into(), value.into_owned().into());
        true
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| &**value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What a client is told: it sees one server, the primary, whichever node answered.
    pub fn as_seen_by_clients(&self) -> Reported {
        let mut seen = self.clone();
        if seen.get(IN_HOT_STANDBY).is_some() {
            seen.update(IN_HOT_STANDBY.as_bytes(), b"off");
        }
        seen
    }
}

const IN_HOT_STANDBY: &str = "in_hot_standby";

/// Whether changes of a parameter concern only the node, never the client.
pub fn is_of_the_node(name: &[u8]) -> bool {
    name == IN_HOT_STANDBY.as_bytes()
}
