//! Open tasks, their pace and the ledger: each step one script, so that it holds among any number of dispatchers and is
//! done wholly or not at all. `crate::task_ledger` says the same in Rust.

use redis::{Cmd, FromRedisValue, Value};

use super::RedisBackend;
use crate::BusError;
use crate::backend::{CloseTask, OpenTaskArgs};
use crate::task_ledger::{RECOVERY, REMEMBERED, SLOWEST, tolerance};
use crate::tasks::{CapReached, Pace, SlotResult};
use std::time::Duration;

/// What stands in braces decides the slot in a Cluster; it is the ledger's own name, so that all three live together.
const OPEN: &str = "{spillway:ledger}:open";
const SPENT: &str = "{spillway:ledger}:spent";
const LEDGER: &str = "spillway:ledger";
/// Tasks that have their line, each with the time of it (Unix milliseconds).
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

/// Target, tolerance in ms, patience asked for in ms or nothing, slowest factor, recovery.
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

/// Keys: open, spent, ledger, closed. Task; then, if there is one, the line, how many to keep, month and tenant, amount,
/// and how long it is remembered that the task is closed, in ms.
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

fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(text).arg(keys.len()).arg(keys);
    cmd
}

fn number<T: ToString>(number: Option<T>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

impl RedisBackend {
    pub(super) async fn open_task(&self, args: &OpenTaskArgs<'_>) -> Result<SlotResult, BusError> {
        let mut cmd = script(OPEN_TASK, &[OPEN, CLOSED]);
        cmd.arg(args.task).arg(args.tenant).arg(args.target).arg(args.facts);
        cmd.arg(number(args.caps.all)).arg(number(args.caps.tenant)).arg(number(args.caps.target));
        cmd.arg(number(args.pace.map(|pace| tolerance(pace).as_millis())));
        cmd.arg(number(args.pace.map(|pace| pace.per_second / 1000.0)));
        cmd.arg(number(args.pace.map(|pace| pace.max_wait.as_millis())));
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

    pub(super) async fn set_pace(&self, target: &str, pace: Pace, complaint: Option<Duration>) -> Result<(), BusError> {
        let mut cmd = script(PACE, &[OPEN]);
        cmd.arg(target).arg(number(Some(tolerance(pace).as_millis()))).arg(number(complaint.map(|it| it.as_millis())));
        cmd.arg(SLOWEST).arg(RECOVERY);
        self.commands.run("pace", Some(OPEN), cmd).await
    }

    pub(super) async fn close_task(&self, closing: &CloseTask<'_>) -> Result<bool, BusError> {
        let mut cmd = script(CLOSE, &[OPEN, SPENT, LEDGER, CLOSED]);
        cmd.arg(closing.task);
        match closing.line {
            Some(line) => cmd
                .arg(line.text)
                .arg(closing.keep)
                .arg(format!("{} {}", line.month, line.tenant))
                .arg(format!("{:.9}", line.amount))
                .arg(REMEMBERED.as_millis() as u64),
            None => cmd.arg("").arg("").arg("").arg("").arg(""),
        };
        self.commands.run("close a task", Some(OPEN), cmd).await
    }

    pub(super) async fn opened_tasks(&self) -> Result<Vec<(String, String)>, BusError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(OPEN);
        let all: Vec<(String, String)> = self.commands.run("list tasks", Some(OPEN), cmd).await?;
        let task = |(field, kept): (String, String)| Some((field.strip_prefix("t:")?.to_owned(), kept));
        Ok(all.into_iter().filter_map(task).collect())
    }

    pub(super) async fn spent_in(&self, field: &str) -> Result<f64, BusError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(SPENT).arg(field);
        let spent: Option<f64> = self.commands.run("read what was spent", Some(SPENT), cmd).await?;
        Ok(spent.unwrap_or_default())
    }

    pub(super) async fn ledger_lines(
        &self,
        from: &str,
        until_ms: i64,
        max: usize,
    ) -> Result<Vec<(String, String)>, BusError> {
        const ACT: &str = "read the ledger";
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(LEDGER).arg(from).arg(until_ms).arg("COUNT").arg(max);
        let found: Vec<(String, Value)> = self.commands.run(ACT, Some(LEDGER), cmd).await?;
        let line = |(id, fields): (String, Value)| {
            let fields = Vec::<(String, String)>::from_redis_value(fields)?;
            Ok(fields.into_iter().find(|(name, _)| name == "l").map(|(_, text)| (id, text)))
        };
        let lines: Result<Vec<_>, redis::ParsingError> = found.into_iter().map(line).collect();
        let lines = lines.map_err(|error| BusError::Command { act: ACT, source: error.into() })?;
        Ok(lines.into_iter().flatten().collect())
    }
}
