//! A DNS server with answers of the test's choice, for a network namespace of its own: resolvers ask port 53 only. A name may
//! have another answer each time it is asked for, as names that rebind have.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const A: u16 = 1;
const AAAA: u16 = 28;
const HEADER_BYTES: usize = 12;
/// A response; recursion available.
const FOUND: u16 = 0x8180;
const NO_SUCH_NAME: u16 = 0x8183;

type Names = BTreeMap<String, VecDeque<Vec<IpAddr>>>;

/// Ends when dropped.
pub struct DnsServer {
    names: Arc<Mutex<Names>>,
    task: JoinHandle<()>,
}

impl DnsServer {
    /// Listens there, on UDP; it knows no name yet.
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let names = Arc::<Mutex<Names>>::default();
        let known = names.clone();
        let task = tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &mut known.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(Self { names, task })
    }

    /// From now on the name has these answers, each a list of addresses; the last one stays. A question for addresses of
    /// IPv4 takes one of them, the one for IPv6 that comes with it does not.
    pub fn set(&self, name: &str, answers: &[&[IpAddr]]) {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_ascii_lowercase(), answers);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The response to a query with one question; `None`: it is none.
fn answer(query: &[u8], names: &mut Names) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (HEADER_BYTES, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at + 1..at + 1 + length)?).ok()?.to_ascii_lowercase());
        at += 1 + length;
    }
    let question = query.get(HEADER_BYTES..at + 5)?;
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let answers = names.get_mut(&labels.join("."));
    let is_known = answers.is_some();
    let addresses = match (kind, answers) {
        (A, Some(answers)) if answers.len() > 1 => answers.pop_front(),
        (A | AAAA, Some(answers)) => answers.front().cloned(),
        _ => None,
    };
    let records: Vec<Vec<u8>> = addresses.into_iter().flatten().filter_map(|address| record(address, kind)).collect();
    let count = u16::try_from(records.len()).ok()?;
    let mut response = query[..2].to_vec();
    for number in [if is_known { FOUND } else { NO_SUCH_NAME }, 1, count, 0, 0] {
        response.extend_from_slice(&number.to_be_bytes());
    }
    response.extend_from_slice(question);
    response.extend(records.concat());
    Some(response)
}

/// A resource record for the name of the question; `None`: the address is of the other kind.
fn record(address: IpAddr, kind: u16) -> Option<Vec<u8>> {
    let address = match (address, kind) {
        (IpAddr::V4(address), A) => address.octets().to_vec(),
        (IpAddr::V6(address), AAAA) => address.octets().to_vec(),
        _ => return None,
    };
    let length = u16::try_from(address.len()).ok()?;
    // A pointer to the question's name; class IN; not to be kept.
    let mut record = vec![0xc0, 0x0c];
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    record.extend_from_slice(&length.to_be_bytes());
    record.extend(address);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.push(0);
        query.extend_from_slice(&kind.to_be_bytes());
        query.extend_from_slice(&[0, 1]);
        query
    }

    #[test]
    fn a_name_has_its_answers_one_after_the_other() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let answers = VecDeque::from([vec![address("10.0.0.5"), address("::1")], vec![address("127.0.0.1")]]);
        let mut names = Names::from([("a.example".to_owned(), answers)]);
        let of_six = answer(&query("A.example", AAAA), &mut names).unwrap();
        assert!(of_six.ends_with(&address_bytes("::1")) && of_six[6..8] == [0, 1], "one of the two is of IPv6");
        for expected in [[10, 0, 0, 5], [127, 0, 0, 1], [127, 0, 0, 1]] {
            let response = answer(&query("a.example", A), &mut names).unwrap();
            assert_eq!(
                (&response[..4], &response[response.len() - 4..]),
                (&[0x12, 0x34, 0x81, 0x80][..], &expected[..])
            );
        }
        let unknown = answer(&query("b.example", A), &mut names).unwrap();
        assert_eq!((&unknown[2..4], &unknown[6..8]), (&[0x81, 0x83][..], &[0, 0][..]));
        assert_eq!(answer(b"short", &mut names), None);
    }

    fn address_bytes(text: &str) -> [u8; 16] {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }
}
