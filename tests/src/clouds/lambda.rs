//! AWS Lambda: the runtime API that a function polls for its next event, instances that are started and frozen in
//! between, two more attempts for a failed event; the rule of EventBridge in front of it, and Secrets Manager beside
//! it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::CloudSetup;
use super::ecs::{ACCOUNT, REGION};
use super::fault::{CloudFault, FaultScript};
use super::policy::Policy;
use super::task_process::TaskProcess;
use super::web::{HttpReply, HttpRequest, HttpServer};

/// `reserved_concurrent_executions`.
const MAX_INSTANCES: usize = 5;
/// The first, and two more.
const MAX_TRIES: u32 = 3;
const API: &str = "/2018-06-01/runtime/";

/// How the event bus delivers.
#[derive(Clone, Copy, Debug)]
pub struct EventDelivery {
    /// Deliveries of each event.
    pub copies: usize,
    /// Each copy arrives at a random moment within this time, so in any order.
    pub within: Duration,
    /// Also events that the rules of the Terraform module filter out.
    pub everything: bool,
    /// Of the random moments.
    pub seed: u64,
}

impl EventDelivery {
    /// Each event once and at once.
    pub const PROMPT: Self = Self { copies: 1, within: Duration::ZERO, everything: false, seed: 0 };
}

/// An event after its last attempt.
#[derive(Clone, Debug)]
pub struct FinishedInvocation {
    /// As delivered.
    pub event: Value,
    /// Attempts.
    pub tries: u32,
    /// Response of the function, or the last error.
    pub result: Result<Value, Value>,
}

/// A function and its instances.
pub struct Lambda {
    service: Arc<LambdaService>,
}

struct LambdaService {
    /// `environment` is the function's; `grace` the time of one invocation.
    setup: CloudSetup,
    /// Until the next try; AWS waits one minute, then two.
    retry: Duration,
    state: Mutex<LambdaState>,
    came: Notify,
}

#[derive(Default)]
struct LambdaState {
    queue: VecDeque<Invocation>,
    waiting: usize,
    instances: BTreeMap<u64, Instance>,
    begun: u64,
    /// After how long the instance that takes the next events is killed.
    strikes: VecDeque<Duration>,
    failures: Vec<Value>,
    done: Vec<FinishedInvocation>,
}

#[derive(Clone)]
struct Invocation {
    id: String,
    event: Value,
    tries: u32,
}

struct Instance {
    // Until its program is gone.
    _web: HttpServer,
}

#[derive(Default)]
struct InstanceSlot {
    task_process: OnceLock<TaskProcess>,
    doing: Mutex<Option<Invocation>>,
}

impl Lambda {
    /// `setup.environment` is the function's, `setup.grace` the timeout of one invocation, `retry` the wait between
    /// attempts (AWS: one minute, then two).
    pub fn new(setup: CloudSetup, retry: Duration) -> Self {
        let service = LambdaService { setup, retry, state: Mutex::default(), came: Notify::new() };
        Self { service: Arc::new(service) }
    }

    /// Invokes the function with every event that the two rules of the Terraform module let through.
    pub fn listen_to(&self, mut events: mpsc::UnboundedReceiver<Value>, delivery: EventDelivery) {
        let service = Arc::clone(&self.service);
        let mut rng = StdRng::seed_from_u64(delivery.seed);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let detail = &event["detail"];
                let ruled = detail["lastStatus"] == "STOPPED" || detail["stopCode"] == "TerminationNotice";
                if !ruled && !delivery.everything {
                    continue;
                }
                for _ in 0..delivery.copies {
                    let (service, event) = (Arc::clone(&service), event.clone());
                    let after = delivery.within.mul_f64(rng.random_range(0.0..=1.0));
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        service.invoke(event);
                    });
                }
            }
        });
    }

    /// Invokes the function asynchronously, as an event bus does.
    pub fn invoke(&self, event: Value) {
        self.service.invoke(event);
    }

    /// Kills the instances that take the next events, each after the given time.
    pub fn strike(&self, after: impl IntoIterator<Item = Duration>) {
        self.service.state().strikes.extend(after);
    }

    /// Events that have succeeded or reached the dead-letter queue.
    pub fn done(&self) -> Vec<FinishedInvocation> {
        self.service.state().done.clone()
    }

    /// Error of every failed attempt.
    pub fn failures(&self) -> Vec<Value> {
        self.service.state().failures.clone()
    }

    /// No event waits or is being handled.
    pub fn is_idle(&self) -> bool {
        let state = self.service.state();
        state.queue.is_empty() && state.waiting == state.instances.len()
    }
}

impl LambdaService {
    fn state(&self) -> MutexGuard<'_, LambdaState> {
        locked(&self.state)
    }

    fn invoke(self: &Arc<Self>, event: Value) {
        self.push(Invocation { id: format!("{:032x}", rand::random::<u128>()), event, tries: 0 });
    }

    fn push(self: &Arc<Self>, invocation: Invocation) {
        let mut state = self.state();
        state.queue.push_back(invocation);
        let wanted = state.queue.len() > state.waiting && state.instances.len() < MAX_INSTANCES;
        drop(state);
        self.came.notify_one();
        if wanted {
            let service = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = service.begin().await {
                    service.state().failures.push(json!({ "start": format!("{error:#}") }));
                }
            });
        }
    }

    /// A new instance: the function's program, with its own way to the runtime API.
    async fn begin(self: &Arc<Self>) -> Result<()> {
        let slot = Arc::new(InstanceSlot::default());
        let (service, at) = (Arc::downgrade(self), Arc::clone(&slot));
        let web = HttpServer::start(move |request| {
            let (service, slot) = (service.clone(), Arc::clone(&at));
            async move { answer(service, slot, request).await }
        })
        .await?;
        let given = BTreeMap::from([
            ("AWS_LAMBDA_RUNTIME_API".to_owned(), web.address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME".to_owned(), "settle".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION".to_owned(), "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE".to_owned(), "256".to_owned()),
            ("AWS_REGION".to_owned(), REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), "ASIASETTLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "settle-secret".to_owned()),
            ("AWS_SESSION_TOKEN".to_owned(), "settle-session".to_owned()),
        ]);
        let number = {
            let mut state = self.state();
            state.begun += 1;
            let number = state.begun;
            state.instances.insert(number, Instance { _web: web });
            number
        };
        let task_process = TaskProcess::start(&self.setup, &format!("lambda-{number}"), &given, &[])?;
        let _ = slot.task_process.set(task_process.clone());
        let service = Arc::downgrade(self);
        tokio::spawn(async move {
            let exit = task_process.exit().await;
            let Some(service) = service.upgrade() else { return };
            service.state().instances.remove(&number);
            let doing = locked(&slot.doing).take();
            if let Some(invocation) = doing {
                let message = format!("RequestId: {} Error: Runtime exited: {exit:?}", invocation.id);
                service.failed(invocation, json!({ "errorType": "Runtime.ExitError", "errorMessage": message }));
            }
        });
        Ok(())
    }

    fn failed(self: &Arc<Self>, invocation: Invocation, why: Value) {
        let tries = invocation.tries + 1;
        let mut state = self.state();
        state.failures.push(why.clone());
        if tries >= MAX_TRIES {
            state.done.push(FinishedInvocation { event: invocation.event, tries, result: Err(why) });
            return;
        }
        drop(state);
        let service = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(service.retry).await;
            service.push(Invocation { tries, ..invocation });
        });
    }

    /// The next event for this instance, which is frozen until there is one.
    async fn next(self: &Arc<Self>, slot: &Arc<InstanceSlot>) -> HttpReply {
        self.state().waiting += 1;
        let invocation = loop {
            let came = self.came.notified();
            let next = {
                let mut state = self.state();
                let next = state.queue.pop_front();
                state.waiting -= usize::from(next.is_some());
                if !state.queue.is_empty() {
                    self.came.notify_one();
                }
                next
            };
            match next {
                Some(invocation) => break invocation,
                None => {
                    slot.signal(Signal::STOP);
                    came.await;
                    slot.signal(Signal::CONT);
                }
            }
        };
        *locked(&slot.doing) = Some(invocation.clone());
        let limit = self.setup.grace;
        let strike = self.state().strikes.pop_front();
        let (watched, id) = (Arc::clone(slot), invocation.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(strike.unwrap_or(limit)).await;
            let still = locked(&watched.doing).as_ref().is_some_and(|doing| doing.id == id);
            if let (true, Some(task_process)) = (still, watched.task_process.get()) {
                task_process.kill();
            }
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        HttpReply::json(200, invocation.event)
            .with("lambda-runtime-aws-request-id", invocation.id)
            .with("lambda-runtime-deadline-ms", (now + limit).as_millis().to_string())
            .with("lambda-runtime-invoked-function-arn", format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:settle"))
            .with("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0")
    }
}

impl InstanceSlot {
    fn signal(&self, signal: Signal) {
        if let Some(task_process) = self.task_process.get() {
            task_process.signal(signal);
        }
    }

    fn take(&self, id: &str) -> Option<Invocation> {
        locked(&self.doing).take_if(|doing| doing.id == id)
    }
}

async fn answer(service: Weak<LambdaService>, slot: Arc<InstanceSlot>, request: HttpRequest) -> HttpReply {
    let Some(service) = service.upgrade() else { return HttpReply::HangUp };
    let path = request.path.strip_prefix(API).unwrap_or_default();
    let accepted = HttpReply::json(202, json!({ "status": "OK" }));
    let unknown =
        || HttpReply::json(400, json!({ "errorType": "InvalidRequestID", "errorMessage": "Invalid request ID" }));
    match (request.method.as_str(), path.split('/').collect::<Vec<_>>().as_slice()) {
        ("GET", ["invocation", "next"]) => service.next(&slot).await,
        ("POST", ["invocation", id, "response"]) => {
            let Some(invocation) = slot.take(id) else { return unknown() };
            let (event, tries) = (invocation.event, invocation.tries + 1);
            service.state().done.push(FinishedInvocation { event, tries, result: Ok(request.json()) });
            accepted
        }
        ("POST", ["invocation", id, "error"]) => {
            let Some(invocation) = slot.take(id) else { return unknown() };
            service.failed(invocation, request.json());
            accepted
        }
        ("POST", ["init", "error"]) => {
            service.state().failures.push(request.json());
            accepted
        }
        _ => HttpReply::json(404, json!({ "errorType": "NotFound" })),
    }
}

/// Secrets Manager: GetSecretValue.
pub struct FakeSecretsManager {
    /// Its endpoint.
    pub web: HttpServer,
    faults: Arc<FaultScript>,
}

impl FakeSecretsManager {
    /// `secrets` maps ARN to value; `policy` is the permissions of the reader.
    pub async fn start(secrets: BTreeMap<String, String>, policy: Policy) -> Result<Self> {
        let faults = Arc::new(FaultScript::default());
        let script = Arc::clone(&faults);
        let web = HttpServer::start(move |request| {
            let reply = read(&secrets, &policy, &script, &request);
            async move { reply }
        });
        Ok(Self { web: web.await?, faults })
    }

    /// Faults to inject.
    pub fn faults(&self) -> &FaultScript {
        &self.faults
    }
}

fn read(secrets: &BTreeMap<String, String>, policy: &Policy, faults: &FaultScript, request: &HttpRequest) -> HttpReply {
    let refused =
        |status, kind: &str, message: &str| HttpReply::json(status, json!({ "__type": kind, "message": message }));
    let scope = format!("/{REGION}/secretsmanager/aws4_request");
    if request.header("x-amz-target") != "secretsmanager.GetSecretValue"
        || !request.header("authorization").contains(&scope)
    {
        return refused(400, "InvalidRequestException", "only GetSecretValue, and signed");
    }
    let arn = request.json()["SecretId"].as_str().unwrap_or_default().to_owned();
    if !policy.allows("secretsmanager:GetSecretValue", &arn, &[]) {
        return refused(400, "AccessDeniedException", "not authorized to perform: secretsmanager:GetSecretValue");
    }
    match faults.next("GetSecretValue") {
        Some(CloudFault::Throttled) => return refused(400, "ThrottlingException", "Rate exceeded"),
        Some(CloudFault::Lost | CloudFault::LostAfter) => return HttpReply::HangUp,
        Some(_) => return refused(500, "InternalServiceError", "An error occurred on the server side."),
        None => {}
    }
    match secrets.get(&arn) {
        Some(value) => HttpReply::json(200, json!({ "ARN": arn, "Name": arn, "SecretString": value })),
        None => refused(400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
