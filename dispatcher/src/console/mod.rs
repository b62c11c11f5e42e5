//! The console: a page for operators and the JSON API behind it, which `spillway` on the command line uses too. Off unless the
//! configuration has a token for it.
//!
//! In: requests below `/console`, each with a bearer token for everything but the page's own files. Out: what lives (`live`,
//! `feed`), the ledger (`history`), targets, prices. The only thing that it changes is an egress that is stopped, with a token
//! that may do so, through the same call that livekit-server makes. Runs in the HTTP server's tasks, and in one of its own
//! while pages are open.

mod access;
mod answer;
mod feed;
mod history;
mod live;
mod page;
mod query;
mod rows;
mod target_rows;
mod view;

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_DISPOSITION, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use spillway_bus::{Bus, BusError, CallOptions, Record, RpcClient, Tasks};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use spillway_protocol::livekit::{EgressInfo, StopEgressRequest};
use spillway_protocol::rpc::service;
use tracing::{Instrument, info, info_span};

use self::access::{ConsoleRight, right_of};
pub use self::answer::ConsoleBody;
use self::answer::{Refused, in_pieces, json_answer, whole};
use self::feed::LiveFeed;
use self::history::{BillSums, History};
use self::live::LiveViews;
use self::query::{LedgerFilter, QueryParameters};
use crate::billing::bill::{self, By};
use crate::billing::price_quote::{self, PriceQuote};
use crate::instance::Instance;
use crate::launch::TaskLauncher;
use crate::records::Records;
use crate::report;

/// Every path of the console begins with it.
pub const PREFIX: &str = "/console";
/// Largest body of a request: a StartEgress whose price is asked.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Lines of a page of the ledger, if the request does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Lines of one egress: a launch each.
const MAX_TASKS: usize = 50;

/// The console of one dispatcher.
pub struct Console {
    instance: Arc<Instance>,
    records: Records,
    feed: Arc<LiveFeed>,
    history: History,
    /// Calls runners, or the dispatcher that answers for them.
    runners: RpcClient,
}

impl Console {
    /// Reads and serves nothing yet.
    pub fn new(bus: &Bus, records: Records, launcher: &Arc<TaskLauncher>) -> Self {
        let instance = Arc::clone(&launcher.instance);
        let views = LiveViews::new(Arc::clone(&instance), records.clone(), Arc::clone(launcher));
        Self {
            feed: Arc::new(LiveFeed::new(Arc::clone(&instance), views)),
            history: History::new(Tasks::new(bus)),
            runners: RpcClient::new(bus, service::EGRESS_HANDLER),
            records,
            instance,
        }
    }

    /// Makes the events of open pages. Returns when the dispatcher stops.
    pub async fn run(self: Arc<Self>) {
        Arc::clone(&self.feed).run().await;
    }

    /// The answer to a request whose path begins with [`PREFIX`].
    pub async fn answer(&self, head: &Parts, body: Bytes) -> Response<ConsoleBody> {
        let Some(rules) = self.instance.config().console.clone() else {
            return Refused::new(StatusCode::NOT_FOUND, "there is no console here").answer();
        };
        let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
        let Some(asked) = path.strip_prefix("/api/") else { return self.page(path) };
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(right) = right_of(&rules, authorization) else {
            let message = "a token is needed: Authorization: Bearer …";
            return Refused::new(StatusCode::UNAUTHORIZED, message).answer();
        };
        let request = ApiRequest { console: self, head, right, authorization };
        request.answer(asked, &body).await.unwrap_or_else(|refused| refused.answer())
    }

    fn page(&self, path: &str) -> Response<ConsoleBody> {
        // Without the slash, addresses in the page would be those beside it.
        if path.is_empty() {
            let mut response = whole("text/plain", "");
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("console/"));
            return response;
        }
        match path.strip_prefix('/').and_then(page::file) {
            Some((content_type, text)) => whole(content_type, text),
            None => Refused::new(StatusCode::NOT_FOUND, "there is no such page").answer(),
        }
    }
}

/// A request of the API whose token is known.
struct ApiRequest<'a> {
    console: &'a Console,
    head: &'a Parts,
    right: ConsoleRight,
    authorization: Option<&'a str>,
}

/// Body of `price`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceAsked {
    request: Value,
    minutes: f64,
}

impl ApiRequest<'_> {
    async fn answer(&self, asked: &str, body: &Bytes) -> Result<Response<ConsoleBody>, Refused> {
        match asked {
            "status" => self.reads(&[]).map(|_| json_answer(&self.status())),
            "egresses" => {
                self.reads(&[])?;
                let view = self.console.feed.views.latest().await?;
                Ok(whole("application/json", view.snapshot()))
            }
            "events" => self.events(),
            "targets" => {
                self.reads(&[])?;
                Ok(json_answer(&self.console.feed.views.latest().await?.targets))
            }
            "ledger" => self.ledger().await,
            "ledger.csv" => self.ledger_csv(),
            "bill" | "bill.csv" => self.bill(asked == "bill.csv").await,
            "price" => self.price(body),
            _ => match asked.strip_prefix("egresses/").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
                Some((id, "")) => self.egress(&egress_id(id)?).await,
                Some((id, "stop")) => self.stop(&egress_id(id)?).await,
                _ => Err(Refused::new(StatusCode::NOT_FOUND, "the API has no such path")),
            },
        }
    }

    /// The parameters of a GET.
    fn reads(&self, known: &[&str]) -> Result<QueryParameters, Refused> {
        if self.head.method != Method::GET && self.head.method != Method::HEAD {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET"));
        }
        QueryParameters::parse(self.head.uri.query().unwrap_or_default(), known).map_err(Refused::bad)
    }

    fn writes(&self) -> Result<(), Refused> {
        match self.head.method {
            Method::POST => Ok(()),
            _ => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this is done with POST")),
        }
    }

    fn status(&self) -> Value {
        let instance = &self.console.instance;
        let config = instance.config();
        json!({
            "dispatcher": instance.name.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "stack": config.stack,
            "may_stop": self.right == ConsoleRight::Stop,
            "currency": config.prices.currency,
            "price_version": config.prices.version,
            "now_ms": instance.clock.unix_ms(),
            "refresh_ms": feed::REFRESH.as_millis() as u64,
        })
    }

    fn events(&self) -> Result<Response<ConsoleBody>, Refused> {
        self.reads(&[])?;
        let (instance, right) = (Arc::clone(&self.console.instance), self.right);
        let authorization = self.authorization.map(str::to_owned);
        // Tokens may be replaced while a page is open.
        let may_read = move || {
            let rules = instance.config().console.clone();
            rules.and_then(|rules| right_of(&rules, authorization.as_deref())) == Some(right)
        };
        let events = self.console.feed.read(Box::new(may_read));
        let too_many = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open already");
        Ok(in_pieces("text/event-stream", events.ok_or_else(too_many)?))
    }

    async fn ledger(&self) -> Result<Response<ConsoleBody>, Refused> {
        let query = self.reads(&[&LedgerFilter::PARAMETERS[..], &["before", "limit"][..]].concat())?;
        let filter = self.filter(&query, "0")?;
        let before = query.get("before").map(ledger_id).transpose()?;
        let max = match query.get("limit").map(str::parse::<usize>) {
            None => PAGE,
            Some(Ok(max)) if (1..=MAX_PAGE).contains(&max) => max,
            Some(_) => return Err(Refused::bad(format!("limit is a number from 1 to {MAX_PAGE}"))),
        };
        Ok(json_answer(&self.console.history.page(&filter, before, max).await?))
    }

    fn ledger_csv(&self) -> Result<Response<ConsoleBody>, Refused> {
        let query = self.reads(&LedgerFilter::PARAMETERS)?;
        let pieces = self.console.history.export(self.filter(&query, "0")?);
        let too_many = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many files are being read already");
        let file = in_pieces("text/csv; charset=utf-8", pieces.ok_or_else(too_many)?);
        Ok(as_file(file, "attachment; filename=\"ledger.csv\""))
    }

    async fn bill(&self, as_csv: bool) -> Result<Response<ConsoleBody>, Refused> {
        let query = self.reads(&[&LedgerFilter::PARAMETERS[..], &["by"][..]].concat())?;
        let by = query.get("by").unwrap_or("room");
        let by = <By as clap::ValueEnum>::from_str(by, false)
            .map_err(|_| Refused::bad("by is one of room, tenant, type, day, target, egress"))?;
        let filter = self.filter(&query, "30d")?;
        let sums = self.console.history.sums(&filter, by).await?;
        if as_csv {
            let file = whole("text/csv; charset=utf-8", csv(&sums, by));
            return Ok(as_file(file, "attachment; filename=\"bill.csv\""));
        }
        let rows = sums.rows.iter().map(|(name, row)| named(name, row));
        let mut total = bill::total(&sums.rows);
        total.join(&sums.others);
        Ok(json_answer(&json!({
            "by": by.title(),
            "since_ms": filter.since_ms,
            "until_ms": filter.until_ms,
            "currency": self.console.instance.config().prices.currency,
            "rows": rows.collect::<Vec<Value>>(),
            "others": sums.others,
            "total": total,
        })))
    }

    fn filter(&self, query: &QueryParameters, since: &str) -> Result<LedgerFilter, Refused> {
        LedgerFilter::of(query, since, self.console.instance.clock.unix_ms()).map_err(Refused::bad)
    }

    fn price(&self, body: &Bytes) -> Result<Response<ConsoleBody>, Refused> {
        self.writes()?;
        // A request may have keys in it: nothing of it is quoted.
        let asked: PriceAsked = serde_json::from_slice(body)
            .map_err(|error| Refused::bad(spillway_protocol::hide_value(error).to_string()))?;
        if !asked.minutes.is_finite() || asked.minutes <= 0.0 {
            return Err(Refused::bad("minutes must be more than 0"));
        }
        let config = self.console.instance.config();
        let load = price_quote::load_of(asked.request, Some(&config.defaults))
            .map_err(|error| Refused::bad(chain(&error).to_string()))?;
        let quotes = price_quote::quotes(&load, asked.minutes * 60.0, Some(&*config), &config.prices);
        let shown = |quote: &Result<PriceQuote, String>| match quote {
            Ok(quote) => json!(quote),
            Err(error) => json!({ "error": error }),
        };
        let quotes: Vec<Value> = quotes.iter().map(shown).collect();
        Ok(json_answer(&json!({
            "minutes": asked.minutes,
            "currency": config.prices.currency,
            "price_version": config.prices.version,
            "quotes": quotes,
        })))
    }

    async fn egress(&self, id: &EgressId) -> Result<Response<ConsoleBody>, Refused> {
        self.reads(&[])?;
        let Console { records, feed, history, instance, .. } = self.console;
        let view = feed.views.latest().await?;
        let record = match records.registry.get(id).await {
            // Its row is missing too; its bill may be there.
            Err(error) if !error.is_transient() => None,
            record => record?,
        };
        // Of one that is forgotten, what the newest lines have.
        let since_ms = record.as_ref().map_or(0, |record| record.accepted_at);
        let filter = LedgerFilter::of_egress(id.as_str(), since_ms, instance.clock.unix_ms());
        let lines = history.page(&filter, None, MAX_TASKS).await?.lines;
        let row = view.find(id.as_str()).map(|egress| json!(egress.row()));
        if row.is_none() && record.is_none() && lines.is_empty() {
            return Err(Refused::new(StatusCode::NOT_FOUND, "egress does not exist, or is forgotten"));
        }
        let info = record.as_ref().map(info_of).transpose()?;
        Ok(json_answer(&json!({ "egress": row, "info": info, "tasks": lines })))
    }

    async fn stop(&self, id: &EgressId) -> Result<Response<ConsoleBody>, Refused> {
        self.writes()?;
        if self.right != ConsoleRight::Stop {
            return Err(Refused::new(StatusCode::FORBIDDEN, "this token may look and not stop"));
        }
        let span = info_span!("egress", egress_id = %id);
        async {
            info!("stop asked through the console");
            let request = StopEgressRequest { egress_id: id.to_string() }.encode_to_vec();
            let Console { runners, .. } = self.console;
            let answer = runners.call(service::STOP_EGRESS, id.as_str(), request, &CallOptions::queue()).await?;
            let info = EgressInfo::decode(answer)
                .map_err(|_| Refused::new(StatusCode::BAD_GATEWAY, "the runner's answer cannot be read"))?;
            Ok(json_answer(&info))
        }
        .instrument(span)
        .await
    }
}

fn egress_id(text: &str) -> Result<EgressId, Refused> {
    EgressId::parse(text).map_err(|error| Refused::bad(error.to_string()))
}

/// As Redis writes ids of a stream's entries: it goes back into a command.
fn ledger_id(text: &str) -> Result<String, Refused> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('-') {
        Some((time, nth)) if is_number(time) && is_number(nth) => Ok(text.to_owned()),
        _ => Err(Refused::bad("before is the `next` of another page")),
    }
}

fn info_of(record: &Record) -> Result<Value, Refused> {
    let info: EgressInfo = report::info_of(record)?;
    serde_json::to_value(&info).map_err(|source| {
        let egress_id = record.egress_id.to_string();
        Refused::from(BusError::Record { egress_id, source })
    })
}

fn named(name: &str, row: &bill::BillRow) -> Value {
    let mut value = json!(row);
    value["name"] = name.into();
    value
}

fn csv(sums: &BillSums, by: By) -> String {
    let mut rows = sums.rows.clone();
    if sums.others.tasks > 0 {
        rows.insert("(others)".to_owned(), sums.others.clone());
    }
    bill::csv(&rows, by)
}

fn as_file(mut response: Response<ConsoleBody>, disposition: &'static str) -> Response<ConsoleBody> {
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    response
}
