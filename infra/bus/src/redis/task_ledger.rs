//! [`TaskLedger`] on Redis: each step one script, so that it holds among any number of dispatchers and is done wholly
//! or not at all. `testing::memory_ledger` does the same in Rust; both pass `tests/bus/suite/tasks.rs`.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use spillway_model::{CapReached, CloseTask, OpenTask, Pace, PaceState, SlotResult};

use super::RedisBackend;
use super::commands::{script, typed};
use crate::error::BusError;
use crate::task_ledger::{CLOSED_REMEMBERED, MAX_LINES, MIN_PACE_FACTOR, PACE_RECOVERY, TaskLedger, one_line};

/// The text in braces decides the slot in a Cluster; it is the ledger's own name, so that all keys of a script are on
/// one server.
const OPEN: &str = "{spillway:ledger}:open";
const SPENT: &str = "{spillway:ledger}:spent";
const LEDGER: &str = "spillway:ledger";
/// Tasks that have their line, each with the time of the line (Unix milliseconds).
const CLOSED: &str = "{spillway:ledger}:closed";

/// Keys: open, closed. Fields: `t:` open tasks, `n` counts, `b:` buckets as "when full, factor, closed until". Task,
/// tenant, target, facts, three caps, tolerance in ms, launches per ms, longest wait in ms.
const OPEN_TASK: &str = "
local key, task = KEYS[1], 't:' .. ARGV[1]
if redis.call('HEXISTS', key, task) == 1 or redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'yes', '0', '1'} end
local names = {'n', 'n:t:' .. ARGV[2], 'n:g:' .. ARGV[3]}
local reasons = {'all', 'tenant', 'target'}
for i = 1, 3 do
  local cap = ARGV[4 + i]
  if cap ~= '' and tonumber(redis.call('HGET', key, names[i]) or '0') >= tonumber(cap) then return {reasons[i], '0', '1'} end
end
local wait, factor = 0, 1
if ARGV[9] ~= '' then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local full, closed = now, now
  local kept = redis.call('HGET', key, 'b:' .. ARGV[3])
  if kept then
    local a, b, c = string.match(kept, '^(%S+) (%S+) (%S+)$')
    full, factor, closed = math.max(tonumber(a), now), tonumber(b), tonumber(c)
  end
  wait = math.max(full - tonumber(ARGV[8]) - now, closed - now, 0)
  if wait > tonumber(ARGV[10]) then return {'later', string.format('%.0f', wait), '1'} end
  full = full + 1 / (tonumber(ARGV[9]) * factor)
  redis.call('HSET', key, 'b:' .. ARGV[3], string.format('%.3f %.6f %.0f', full, factor, closed))
end
redis.call('HSET', key, task, ARGV[2] .. '\\n' .. ARGV[3] .. '\\n' .. ARGV[4])
for i = 1, 3 do redis.call('HINCRBY', key, names[i], 1) end
return {'yes', string.format('%.0f', wait), tostring(factor)}";

/// Target, tolerance in ms, the platform's retry-after in ms or nothing, minimum factor, recovery.
const PACE: &str = "
local key, field = KEYS[1], 'b:' .. ARGV[1]
local kept = redis.call('HGET', key, field)
if not kept then return 0 end
local a, b, c = string.match(kept, '^(%S+) (%S+) (%S+)$')
local full, factor, closed = tonumber(a), tonumber(b), tonumber(c)
if ARGV[3] == '' then
  factor = math.min(1, factor + tonumber(ARGV[5]))
else
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  factor = math.max(factor / 2, tonumber(ARGV[4]))
  closed = math.max(closed, now + tonumber(ARGV[3]))
  full = math.max(full, closed + tonumber(ARGV[2]))
end
redis.call('HSET', key, field, string.format('%.3f %.6f %.0f', full, factor, closed))
return 1";

/// Keys: open, spent, ledger, closed. Task; then, if there is one, the line, how many to keep, month and tenant,
/// amount, and for how many ms the task is remembered as closed.
const CLOSE: &str = "
local kept = redis.call('HGET', KEYS[1], 't:' .. ARGV[1])
if not kept then return 0 end
redis.call('HDEL', KEYS[1], 't:' .. ARGV[1])
local tenant, target = string.match(kept, '^([^\\n]*)\\n([^\\n]*)\\n')
for _, name in ipairs({'n', 'n:t:' .. tenant, 'n:g:' .. target}) do
  if redis.call('HINCRBY', KEYS[1], name, -1) <= 0 then redis.call('HDEL', KEYS[1], name) end
end
if ARGV[2] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'l', ARGV[2])
  redis.call('HINCRBYFLOAT', KEYS[2], ARGV[4], ARGV[5])
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('ZADD', KEYS[4], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - tonumber(ARGV[6]))
end
return 1";

/// An empty argument is `None` to the scripts.
fn number<T: ToString>(number: Option<T>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

#[async_trait]
impl TaskLedger for RedisBackend {
    async fn open_task(&self, open_task: &OpenTask<'_>) -> Result<SlotResult, BusError> {
        let OpenTask { task, tenant, target, facts, caps, pace } = open_task;
        let mut cmd = script(OPEN_TASK, &[OPEN, CLOSED]);
        cmd.arg(task.to_string()).arg(one_line(tenant)).arg(target).arg(facts);
        cmd.arg(number(caps.all)).arg(number(caps.tenant)).arg(number(caps.target));
        cmd.arg(number(pace.map(|pace| pace.tolerance().as_millis())));
        cmd.arg(number(pace.map(|pace| pace.per_second / 1000.0)));
        cmd.arg(number(pace.map(|pace| pace.max_wait.as_millis())));
        let (outcome, wait, factor): (String, u64, f64) = self.commands.run("open a task", Some(OPEN), cmd).await?;
        let wait = Duration::from_millis(wait);
        Ok(match outcome.as_str() {
            "yes" => SlotResult::Granted { wait, slowed: factor < 1.0 },
            "all" => SlotResult::Refused(CapReached::All),
            "tenant" => SlotResult::Refused(CapReached::Tenant),
            "target" => SlotResult::Refused(CapReached::Target),
            _ => SlotResult::Later(wait),
        })
    }

    async fn adjust_pace(&self, target: &str, pace: Pace, retry_after: Option<Duration>) -> Result<(), BusError> {
        let mut cmd = script(PACE, &[OPEN]);
        cmd.arg(target).arg(number(Some(pace.tolerance().as_millis())));
        cmd.arg(number(retry_after.map(|it| it.as_millis()))).arg(MIN_PACE_FACTOR).arg(PACE_RECOVERY);
        self.commands.run("pace", Some(OPEN), cmd).await
    }

    async fn pace_states(&self, targets: &[String]) -> Result<Vec<Option<PaceState>>, BusError> {
        // HMGET takes at least one field.
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(OPEN);
        for target in targets {
            cmd.arg(format!("b:{target}"));
        }
        let kept: Vec<Option<String>> = self.commands.run("read the pace", Some(OPEN), cmd).await?;
        Ok(kept.into_iter().map(|kept| pace_state(&kept?)).collect())
    }

    async fn close_task(&self, close_task: &CloseTask<'_>) -> Result<bool, BusError> {
        let mut cmd = script(CLOSE, &[OPEN, SPENT, LEDGER, CLOSED]);
        cmd.arg(close_task.task.to_string());
        match close_task.line {
            Some(line) => cmd
                .arg(line.text)
                .arg(MAX_LINES)
                .arg(format!("{} {}", line.month, one_line(line.tenant)))
                .arg(format!("{:.9}", line.amount))
                .arg(CLOSED_REMEMBERED.as_millis() as u64),
            None => cmd.arg("").arg("").arg("").arg("").arg(""),
        };
        self.commands.run("close a task", Some(OPEN), cmd).await
    }

    async fn open_tasks(&self) -> Result<Vec<(String, String)>, BusError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(OPEN);
        let all: Vec<(String, String)> = self.commands.run("list tasks", Some(OPEN), cmd).await?;
        let task = |(field, stored): (String, String)| Some((field.strip_prefix("t:")?.to_owned(), stored));
        Ok(all.into_iter().filter_map(task).collect())
    }

    async fn spent(&self, field: &str) -> Result<f64, BusError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(SPENT).arg(field);
        let spent: Option<f64> = self.commands.run("read what was spent", Some(SPENT), cmd).await?;
        Ok(spent.unwrap_or_default())
    }

    async fn ledger_lines(&self, from: &str, until_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(LEDGER).arg(from).arg(until_ms).arg("COUNT").arg(max);
        self.lines_of(cmd).await
    }

    async fn newest_lines(&self, until: &str, since_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(LEDGER).arg(until).arg(since_ms).arg("COUNT").arg(max);
        self.lines_of(cmd).await
    }
}

impl RedisBackend {
    /// The lines that a range of the ledger's stream has.
    ///
    /// # Errors
    /// As for every method of [`TaskLedger`].
    async fn lines_of(&self, cmd: redis::Cmd) -> Result<Vec<(String, String)>, BusError> {
        const ACT: &str = "read the ledger";
        let found: Vec<(String, Value)> = self.commands.run(ACT, Some(LEDGER), cmd).await?;
        let line = |(id, fields): (String, Value)| {
            let fields: Vec<(String, String)> = typed(ACT, fields)?;
            Ok(fields.into_iter().find(|(name, _)| name == "l").map(|(_, text)| (id, text)))
        };
        let lines: Result<Vec<_>, BusError> = found.into_iter().map(line).collect();
        Ok(lines?.into_iter().flatten().collect())
    }
}

/// A bucket as the scripts store it; `None`: not of that form.
fn pace_state(kept: &str) -> Option<PaceState> {
    let mut parts = kept.split(' ').skip(1);
    let (factor, closed) = (parts.next()?.parse().ok()?, parts.next()?.parse::<f64>().ok()?);
    Some(PaceState { factor, closed_until_ms: closed as i64 })
}
