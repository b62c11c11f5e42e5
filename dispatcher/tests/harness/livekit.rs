//! livekit-server: calls the egress services through psrpc, serves IOInfo, and checks the order of the updates it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{AffinityOptions, Bid, Bus, CallOptions, Handler, Incoming, Routing, RpcClient, RpcServer};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::livekit::encoded_file_output::Output as Upload;
use spillway_protocol::livekit::{
    EgressInfo, EgressStatus, EncodedFileOutput, RoomCompositeEgressRequest, S3Upload, StopEgressRequest,
};
use spillway_protocol::rpc::{GetEgressRequest, StartEgressRequest, service, start_egress_request::EgressRequest};

/// livekit-server as an egress service sees it: starts and stops egresses, and stores the EgressInfo it gets.
pub struct LiveKit {
    internal: RpcClient,
    handler: RpcClient,
    book: Arc<Mutex<Book>>,
    _io: RpcServer,
}

#[derive(Default)]
pub struct Book {
    pub infos: BTreeMap<String, EgressInfo>,
    pub created: BTreeMap<String, u32>,
    /// Terminal updates of each egress.
    pub ends: BTreeMap<String, u32>,
    /// Protocol violations: an update before CreateEgress, or after the end.
    pub violations: Vec<String>,
}

enum Io {
    Create,
    Update,
    Get,
}

struct IoHandler {
    book: Arc<Mutex<Book>>,
    io: Io,
}

#[async_trait]
impl Handler for IoHandler {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        if let Io::Get = self.io {
            let asked = GetEgressRequest::decode(incoming.request.as_ref()).unwrap().egress_id;
            let found = self.book.lock().unwrap().infos.get(&asked).map(EgressInfo::encode_to_vec);
            return found.ok_or_else(|| RpcError::new(Code::NotFound, "egress not found"));
        }
        let info = EgressInfo::decode(incoming.request.as_ref()).unwrap();
        let id = info.egress_id.clone();
        let mut book = self.book.lock().unwrap();
        match self.io {
            Io::Get => {}
            Io::Create => {
                *book.created.entry(id.clone()).or_default() += 1;
                book.infos.entry(id).or_insert(info);
            }
            Io::Update => {
                match book.infos.get(&id) {
                    None => book.violations.push(format!("{id}: updated before it was created")),
                    Some(known) if is_over(known) && known.status() != info.status() => {
                        let wrong = format!("{id}: {:?} after {:?}", info.status(), known.status());
                        book.violations.push(wrong);
                    }
                    Some(_) => {}
                }
                if is_over(&info) {
                    assert_ne!(info.ended_at, 0);
                    *book.ends.entry(id.clone()).or_default() += 1;
                }
                book.infos.insert(id, info);
            }
        }
        Ok(Vec::new())
    }
}

pub fn is_over(info: &EgressInfo) -> bool {
    !matches!(info.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
}

impl LiveKit {
    pub async fn open(bus: &Bus) -> Self {
        let book = Arc::<Mutex<Book>>::default();
        let io = RpcServer::new(bus, service::IO_INFO);
        for (method, kind) in
            [(service::CREATE_EGRESS, Io::Create), (service::UPDATE_EGRESS, Io::Update), (service::GET_EGRESS, Io::Get)]
        {
            let handler = Arc::new(IoHandler { book: Arc::clone(&book), io: kind });
            io.serve(method, "", Routing::Queue, handler).await.unwrap();
        }
        Self {
            internal: RpcClient::new(bus, service::EGRESS_INTERNAL),
            handler: RpcClient::new(bus, service::EGRESS_HANDLER),
            book,
            _io: io,
        }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// The egress as ListEgress would show it.
    pub fn shows(&self, id: &str) -> Option<EgressInfo> {
        self.book().infos.get(id).cloned()
    }

    pub fn status(&self, id: &str) -> Option<EgressStatus> {
        self.shows(id).map(|info| info.status())
    }

    pub async fn start_composite(&self, id: &str) -> Result<EgressInfo, RpcError> {
        self.start_with(id, None).await
    }

    /// As [`start_composite`](Self::start_composite), into a bucket.
    pub async fn start_stored(&self, id: &str) -> Result<EgressInfo, RpcError> {
        let (access_key, secret) = ("key".to_owned(), "secret".to_owned());
        let upload = S3Upload { access_key, secret, bucket: "b".to_owned(), ..Default::default() };
        self.start_with(id, Some(Upload::S3(upload))).await
    }

    async fn start_with(&self, id: &str, output: Option<Upload>) -> Result<EgressInfo, RpcError> {
        let file = EncodedFileOutput { filepath: format!("{id}.mp4"), output, ..Default::default() };
        self.start(StartEgressRequest {
            egress_id: id.to_owned(),
            room_id: "RM_room".to_owned(),
            request: Some(EgressRequest::RoomComposite(RoomCompositeEgressRequest {
                room_name: "room".to_owned(),
                file_outputs: vec![file],
                ..Default::default()
            })),
            ..Default::default()
        })
        .await
    }

    /// As livekit-server does it: up to three attempts of 10, 20 and 40 s with the same egress id.
    pub async fn start(&self, start: StartEgressRequest) -> Result<EgressInfo, RpcError> {
        let mut attempts = [10, 20, 40].into_iter().map(Duration::from_secs).peekable();
        loop {
            let options = AffinityOptions::start_egress().timeout(attempts.next().unwrap());
            let answer =
                self.internal.call_by_affinity(service::START_EGRESS, "", start.encode_to_vec(), &options).await;
            match answer {
                Ok(bytes) => return Ok(EgressInfo::decode(bytes).unwrap()),
                Err(error) if attempts.peek().is_some() && is_repeated(error.code) => {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn stop(&self, id: &str) -> Result<EgressInfo, RpcError> {
        let request = StopEgressRequest { egress_id: id.to_owned() }.encode_to_vec();
        let mut last = RpcError::new(Code::Unknown, "never asked");
        for timeout in [3, 5, 7].map(Duration::from_secs) {
            let options = CallOptions::queue().timeout(timeout);
            match self.handler.call(service::STOP_EGRESS, id, request.clone(), &options).await {
                Ok(bytes) => return Ok(EgressInfo::decode(bytes).unwrap()),
                Err(error) if matches!(error.code, Code::Unavailable | Code::DeadlineExceeded) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    pub async fn call_handler(&self, method: &str, id: &str) -> Result<(), RpcError> {
        self.handler.call(method, id, Vec::new(), &CallOptions::queue()).await.map(drop)
    }

    /// Every egress has exactly one final state, and no protocol was violated.
    pub fn assert_each_ended_once(&self) {
        let book = self.book();
        assert!(book.violations.is_empty(), "{:?}", book.violations);
        for (id, info) in &book.infos {
            assert_eq!(book.ends.get(id), Some(&1), "{id} is {:?}", info.status());
        }
    }
}

fn is_repeated(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unavailable)
}
