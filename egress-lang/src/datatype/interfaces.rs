//! The interfaces of a network namespace, by name and by index.

use std::collections::HashMap;

/// What interfaces there are. Where it is asked for a name or an index, it stands for the kernel, so that whoever
/// asks twice gets the same answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    indexes: HashMap<String, u32>,
    names: HashMap<u32, String>,
}

impl Interfaces {
    /// The index of the interface with this name.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.indexes.get(name).copied()
    }

    /// The name of the interface with this index.
    pub fn name(&self, index: u128) -> Option<&str> {
        let index = u32::try_from(index).ok()?;
        self.names.get(&index).map(String::as_str)
    }
}

impl FromIterator<(String, u32)> for Interfaces {
    fn from_iter<I: IntoIterator<Item = (String, u32)>>(interfaces: I) -> Self {
        let mut all = Self::default();
        for (name, index) in interfaces {
            all.names.insert(index, name.clone());
            all.indexes.insert(name, index);
        }
        all
    }
}
