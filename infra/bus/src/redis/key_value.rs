//! [`KeyValue`] on Redis: each step one command or one script, so that it is atomic. A value is a hash of `v`, its
//! version, `d`, its bytes, and `t`, the taker, if it was taken.

use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt;
use redis::{Cmd, Value};

use super::RedisBackend;
use super::commands::{script, typed};
use crate::error::BusError;
use crate::key_value::{CasResult, KeyValue, Lock, NewValue, Precondition, Versioned};

/// PTTL of a key that does not exist.
const NOT_THERE: i64 = -2;

/// KEYS[1]; precondition, its number, version, bytes, ttl in ms or nothing.
const SWAP: &str = "
local have = tonumber(redis.call('HGET', KEYS[1], 'v') or '0')
local number = tonumber(ARGV[2])
if ARGV[1] == 'is' and have ~= number then return 0 end
if ARGV[1] == 'not above' and have > number then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[3], 'd', ARGV[4])
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
return 1";

/// KEYS[1]. A value that was taken reads as absent.
const READ: &str = "
local kept = redis.call('HMGET', KEYS[1], 'v', 'd', 't')
if not kept[2] or kept[3] then return {} end
return {kept[1], kept[2], redis.call('PTTL', KEYS[1])}";

/// KEYS[1]; taker, ms for which it may repeat the take. The first taker writes its name as `t`; the bytes stay as
/// they are, because the answer may be lost and the command be sent again.
const TAKE: &str = "
local kept = redis.call('HMGET', KEYS[1], 'v', 'd', 't')
if not kept[2] then return {} end
local left = redis.call('PTTL', KEYS[1])
if kept[3] then
  if kept[3] ~= ARGV[1] then return {} end
else
  redis.call('HSET', KEYS[1], 't', ARGV[1])
  if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return {kept[1], kept[2], left}";

/// KEYS[1]; holder, ttl in ms. A hash of the last number `n` and its holder `h`, until `u`: the number outlives the
/// lease.
const LEASE: &str = "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local kept = redis.call('HMGET', KEYS[1], 'n', 'h', 'u')
local number = tonumber(kept[1] or '0')
if tonumber(kept[3] or '0') <= now then
  number = number + 1
elseif kept[2] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'n', number, 'h', ARGV[1], 'u', now + tonumber(ARGV[2]))
return number";

/// Redis counts in whole milliseconds and refuses to expire a key in none.
fn ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 2)
}

impl RedisBackend {
    async fn kept(&self, act: &'static str, key: &str, cmd: Cmd) -> Result<Option<Versioned>, BusError> {
        let found: Vec<Value> = self.commands.run(act, Some(key), cmd).await?;
        let [version, value, left] = match <[Value; 3]>::try_from(found) {
            Ok(found) => found,
            Err(_) => return Ok(None),
        };
        let left: i64 = typed(act, left)?;
        Ok(Some(Versioned {
            version: typed(act, version)?,
            value: typed::<Vec<u8>>(act, value)?.into(),
            // Negative: it never expires.
            remaining: u64::try_from(left).ok().map(Duration::from_millis),
        }))
    }
}

#[async_trait]
impl KeyValue for RedisBackend {
    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError> {
        let mut cmd = redis::cmd("SET");
        // The value is a random number, as psrpc's own; nothing reads it.
        cmd.arg(key).arg(rand::rng().random_range(0..i64::MAX)).arg("EX").arg(ttl.as_secs().max(1)).arg("NX");
        let set: Option<String> = self.commands.run("lock", Some(key), cmd).await?;
        Ok(if set.is_some() { Lock::Ours } else { Lock::Theirs })
    }

    async fn read(&self, key: &str) -> Result<Option<Versioned>, BusError> {
        self.kept("read", key, script(READ, &[key])).await
    }

    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, BusError> {
        let mut asked = Vec::with_capacity(2 * keys.len());
        for key in keys {
            let mut cmd = redis::cmd("HMGET");
            cmd.arg(key).arg("v").arg("d");
            let mut left = redis::cmd("PTTL");
            left.arg(key);
            asked.extend([(key.clone(), cmd), (key.clone(), left)]);
        }
        let answers = self.commands.run_all("read", asked).await?;
        let pairs = answers.chunks_exact(2).map(|pair| {
            let (version, value): (Option<u64>, Option<Vec<u8>>) = typed("read", pair[0].clone())?;
            let left: i64 = typed("read", pair[1].clone())?;
            // It may have gone between the two.
            let there = version.zip(value).filter(|_| left != NOT_THERE);
            Ok(there.map(|(version, value)| Versioned {
                version,
                value: value.into(),
                remaining: u64::try_from(left).ok().map(Duration::from_millis),
            }))
        });
        pairs.collect()
    }

    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError> {
        let mut asked = Vec::with_capacity(keys.len());
        for key in keys {
            let mut cmd = redis::cmd("HGET");
            cmd.arg(key).arg("v");
            asked.push((key.clone(), cmd));
        }
        let answers = self.commands.run_all("read", asked).await?;
        let version = |answer| typed::<Option<u64>>("read", answer).map(Option::unwrap_or_default);
        answers.into_iter().map(version).collect()
    }

    async fn compare_and_set(
        &self,
        key: &str,
        precondition: Precondition,
        value: NewValue<'_>,
    ) -> Result<CasResult, BusError> {
        let (precondition, number) = match precondition {
            Precondition::Is(number) => ("is", number),
            Precondition::NotAbove(number) => ("not above", number),
        };
        let ttl = value.ttl.map(|ttl| ms(ttl).to_string()).unwrap_or_default();
        let mut cmd = script(SWAP, &[key]);
        cmd.arg(precondition).arg(number).arg(value.version).arg(value.value).arg(ttl);
        let done: bool = self.commands.run("write", Some(key), cmd).await?;
        Ok(if done { CasResult::Done } else { CasResult::Conflict })
    }

    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Versioned>, BusError> {
        let mut cmd = script(TAKE, &[key]);
        cmd.arg(taker).arg(ms(repeatable));
        self.kept("take", key, cmd).await
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError> {
        let mut cmd = redis::cmd("PEXPIRE");
        cmd.arg(key).arg(ms(ttl));
        self.commands.run("expire", Some(key), cmd).await
    }

    async fn remove(&self, key: &str) -> Result<(), BusError> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(key);
        self.commands.run("remove", Some(key), cmd).await
    }

    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError> {
        let mut cmd = redis::cmd("ZADD");
        cmd.arg(key).arg(score).arg(member);
        self.commands.run("index", Some(key), cmd).await
    }

    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError> {
        let mut cmd = redis::cmd("ZREM");
        cmd.arg(key).arg(member);
        self.commands.run("index", Some(key), cmd).await
    }

    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError> {
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(key).arg(0).arg(-1).arg("WITHSCORES");
        let found: Vec<(String, f64)> = self.commands.run("index", Some(key), cmd).await?;
        // Unix milliseconds are far below 2^53.
        Ok(found.into_iter().map(|(member, score)| (member, score as i64)).collect())
    }

    async fn index_score(&self, key: &str, member: &str) -> Result<Option<i64>, BusError> {
        let mut cmd = redis::cmd("ZSCORE");
        cmd.arg(key).arg(member);
        let score: Option<f64> = self.commands.run("index", Some(key), cmd).await?;
        Ok(score.map(|score| score as i64))
    }

    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        let mut cmd = script(LEASE, &[key]);
        cmd.arg(holder).arg(ms(ttl));
        let number: u64 = self.commands.run("lease", Some(key), cmd).await?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    async fn fence(&self, key: &str) -> Result<u64, BusError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(key).arg("n");
        let number: Option<u64> = self.commands.run("fence", Some(key), cmd).await?;
        Ok(number.unwrap_or_default())
    }

    async fn info(&self) -> Result<String, BusError> {
        self.commands.run("info", None, redis::cmd("INFO")).await
    }
}
