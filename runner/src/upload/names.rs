//! Names of the objects that the files of one egress become. A store keeps one object of a name: two outputs, or two files
//! of one, that ask for one name in one store get a name each. Pure; the upload tasks share it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::results::numbered;

/// Names in the stores of one output. Clones, and those [for other stores](Self::for_stores), share what is taken.
#[derive(Clone, Debug, Default)]
pub(in crate::upload) struct ObjectNames {
    used: Arc<Mutex<HashSet<(usize, String)>>>,
    stores: Vec<usize>,
}

impl ObjectNames {
    /// For an output whose objects go to one of these stores, which have a number each.
    pub fn for_stores(&self, stores: Vec<usize>) -> Self {
        Self { used: self.used.clone(), stores }
    }

    /// `asked`, or its first numbered variant that no other object has in any of the stores. It is taken from now on.
    pub fn take(&self, asked: &str) -> String {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |name: &String| !self.stores.iter().any(|store| used.contains(&(*store, name.clone())));
        let free = (1..=u32::MAX).map(|number| numbered(asked, number)).find(is_free);
        let name = free.unwrap_or_else(|| asked.to_owned());
        used.extend(self.stores.iter().map(|store| (*store, name.clone())));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_in_each_store() {
        let names = ObjectNames::default();
        let (first, second, both) =
            (names.for_stores(vec![0]), names.for_stores(vec![1]), names.for_stores(vec![1, 0]));
        assert_eq!((first.take("d/a.mp4"), second.take("d/a.mp4")), ("d/a.mp4".into(), "d/a.mp4".into()));
        assert_eq!(first.take("d/a.mp4"), "d/a-2.mp4");
        assert_eq!(both.take("d/a.mp4"), "d/a-3.mp4");
        assert_eq!(second.take("d/a.mp4"), "d/a-2.mp4");
    }
}
