//! What most of many do not have.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Takes room only where it is other than nothing: of a set's million elements, hardly any has a comment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rarely<T>(Option<Box<T>>);

/// What has a value that stands for nothing.
pub trait Nothing: Sized + 'static {
    /// That value.
    fn nothing() -> &'static Self;
}

impl<T: Nothing + PartialEq> Rarely<T> {
    /// Without room for what is nothing.
    pub fn new(value: T) -> Self {
        Self((value != *T::nothing()).then(|| Box::new(value)))
    }
}

impl<T: Nothing> Rarely<T> {
    /// What there is, to be changed.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T: Nothing + Default> Rarely<T> {
    /// Makes room for it.
    pub fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Nothing> Deref for Rarely<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::nothing())
    }
}

impl<T: Nothing + PartialEq> PartialEq for Rarely<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
