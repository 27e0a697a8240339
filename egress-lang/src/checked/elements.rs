//! What is in a set.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Element;

/// The elements of a set, which copies of it share until one of them changes: there may be a million.
#[derive(Debug, Clone, Default)]
pub struct Elements(Arc<Vec<Element>>);

impl Elements {
    /// As a list of one's own.
    pub fn into_vec(self) -> Vec<Element> {
        Arc::unwrap_or_clone(self.0)
    }

    /// Shows the statements that elements keep, where any do.
    pub(crate) fn each_statement_mut(&mut self, each: &mut dyn FnMut(&mut super::Statement)) {
        if self
            .iter()
            .all(|element| element.more.statements.is_empty())
        {
            return;
        }
        for more in self.iter_mut().filter_map(|one| one.more.get_mut()) {
            more.statements.iter_mut().for_each(&mut *each);
        }
    }
}

impl Deref for Elements {
    type Target = Vec<Element>;

    fn deref(&self) -> &Vec<Element> {
        &self.0
    }
}

impl DerefMut for Elements {
    fn deref_mut(&mut self) -> &mut Vec<Element> {
        Arc::make_mut(&mut self.0)
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl From<Vec<Element>> for Elements {
    fn from(elements: Vec<Element>) -> Self {
        Self(Arc::new(elements))
    }
}

impl FromIterator<Element> for Elements {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        Self::from(Vec::from_iter(elements))
    }
}

impl<'e> IntoIterator for &'e Elements {
    type Item = &'e Element;
    type IntoIter = std::slice::Iter<'e, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Elements {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}
