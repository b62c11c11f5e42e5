//! Names become addresses: the system's resolver, or in tests answers of the test's choice. Called by a [`Guard`](crate::Guard)
//! in the caller's task; the system's resolver runs on tokio's blocking threads.

#[cfg(feature = "testing")]
use std::collections::{BTreeMap, VecDeque};
use std::io;
#[cfg(feature = "testing")]
use std::net::IpAddr;
use std::net::SocketAddr;
#[cfg(feature = "testing")]
use std::sync::{Arc, Mutex, PoisonError};

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub enum NameLookup {
    /// By the system.
    #[default]
    System,
    /// In a table.
    #[cfg(feature = "testing")]
    Fixed(FixedNames),
}

impl NameLookup {
    /// All addresses of a name, each with this port.
    ///
    /// # Errors
    /// What the resolver says. Whether a retry is right is not known: resolvers say the same of a name that is not there and
    /// of one that is not answered for.
    pub async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((name, port)).await?.collect()),
            #[cfg(feature = "testing")]
            Self::Fixed(names) => names.answer(name, port),
        }
    }
}

/// Names of a test. Each question gets the next answer; the last one stays.
#[cfg(feature = "testing")]
#[derive(Clone, Debug, Default)]
pub struct FixedNames(Arc<Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>>);

#[cfg(feature = "testing")]
impl FixedNames {
    /// Adds a name. `answers`: addresses of each answer, separated by spaces; what is no address is left out.
    #[must_use]
    pub fn with(self, name: &str, answers: &[&str]) -> Self {
        let read =
            |answer: &&str| -> Vec<IpAddr> { answer.split(' ').filter_map(|address| address.parse().ok()).collect() };
        let answers = answers.iter().map(read).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), answers);
        self
    }

    fn answer(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = names.get_mut(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))?;
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(answer.unwrap_or_default().into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}
