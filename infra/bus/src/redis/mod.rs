use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::wire::{Guard, Interest, Kept, Lock, Subscription, Swap, Versioned, Wire};
use crate::{BusError, RedisConfig};
pub(crate) enum RedisWire {}
impl RedisWire {
    pub async fn connect(_: &RedisConfig) -> Result<RedisWire, BusError> {
        Err(BusError::Settings("this build has no redis yet".into()))
    }
}
#[async_trait]
#[rustfmt::skip]
impl Wire for RedisWire {
    async fn publish(&self, _: &str, _: Bytes) -> Result<(), BusError> { match *self {} }
    async fn subscribe(&self, _: Interest) -> Result<Subscription, BusError> { match *self {} }
    async fn lock(&self, _: &str, _: Duration) -> Result<Lock, BusError> { match *self {} }
    async fn read(&self, _: &str) -> Result<Option<Kept>, BusError> { match *self {} }
    async fn swap(&self, _: &str, _: Guard, _: Versioned<'_>) -> Result<Swap, BusError> { match *self {} }
    async fn take(&self, _: &str) -> Result<Option<Kept>, BusError> { match *self {} }
    async fn expire(&self, _: &str, _: Duration) -> Result<(), BusError> { match *self {} }
    async fn remove(&self, _: &str) -> Result<(), BusError> { match *self {} }
    async fn index_add(&self, _: &str, _: &str, _: i64) -> Result<(), BusError> { match *self {} }
    async fn index_remove(&self, _: &str, _: &str) -> Result<(), BusError> { match *self {} }
    async fn index(&self, _: &str) -> Result<Vec<(String, i64)>, BusError> { match *self {} }
    fn healthy(&self) -> bool { match *self {} }
}
