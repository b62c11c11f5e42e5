//! What other versions have stored, and what a dispatcher of the version before does to records during an upgrade.

use serde_json::Value;
use spillway_bus::testing::record_key;
use spillway_bus::{Bus, Caps, LaunchState, OpenTask, Record, Registry, TaskKey, Tasks};
use spillway_protocol::ids::EgressId;

/// Values of a newer version, each of which must stay as it is.
pub struct ForeignValues {
    bus: Bus,
    records: Vec<(String, &'static str)>,
}

/// Ids of these begin with it.
pub const FOREIGN: &str = "EG_foreign";
const SWITCHES: &str = "spillway:switches:targets";
const FACTS: &str = r#"{"version":9,"machine":"quantum"}"#;

impl ForeignValues {
    pub async fn plant(bus: &Bus) -> Self {
        let registry = Registry::new(bus);
        let values = [
            r#"{"egress_id":"EG_foreign0","format":9,"phase":"running","attempt":1}"#,
            r#"{"egress_id":"EG_foreign1","phase":"dreaming","attempt":1}"#,
            r#"{"egress_id":"EG_foreign2","phase":"launching","attempt":1,"dispatch":{"load":"heavy"}}"#,
            "not even json",
        ];
        let mut records = Vec::new();
        for (n, value) in values.into_iter().enumerate() {
            let id = EgressId::parse(&format!("{FOREIGN}{n}")).unwrap();
            registry.create(&Record::new(id.clone(), 1)).await.unwrap();
            bus.replace_bytes(&record_key(&id), value.as_bytes()).await.unwrap();
            records.push((record_key(&id), value));
        }
        // The record can be read, and its ledger cannot: its dispatcher is gone, and so is its task.
        let id = EgressId::parse(&format!("{FOREIGN}9")).unwrap();
        let ledger = r#"{"chapters":[]}"#.to_owned();
        let record = Record { ledger, attempt: 1, dispatcher: "gone".to_owned(), ..Record::new(id, 1) };
        let state = LaunchState::Running { task: None, ending: false };
        registry.create(&Record { state, ..record }).await.unwrap();
        let task = TaskKey { egress_id: EgressId::parse(&format!("{FOREIGN}0")).unwrap(), attempt: 1 };
        let open = OpenTask {
            task: &task,
            tenant: "other",
            target: "elsewhere",
            facts: FACTS,
            caps: Caps::default(),
            pace: None,
        };
        Tasks::new(bus).open(open).await.unwrap();
        bus.replace_bytes(SWITCHES, b"[\"paused\"]").await.unwrap();
        Self { bus: bus.clone(), records }
    }

    pub async fn assert_untouched(&self) {
        for (key, value) in &self.records {
            assert_eq!(self.bus.bytes(key).await.unwrap().unwrap(), value.as_bytes(), "{key}");
        }
        let open = Tasks::new(&self.bus).list().await.unwrap();
        assert!(open.iter().any(|open| open.facts == FACTS), "its bill is another version's: {open:?}");
        assert_eq!(self.bus.bytes(SWITCHES).await.unwrap().unwrap(), &b"[\"paused\"]"[..]);
        let id = EgressId::parse(&format!("{FOREIGN}9")).unwrap();
        let record = Registry::new(&self.bus).get(&id).await.unwrap().unwrap();
        assert!(!record.state.is_over() && record.ledger.contains("chapters"), "{record:?}");
    }
}

/// What a dispatcher of version 0.1.0 leaves of a record that it writes: it keeps unknown fields of the record, and drops
/// those of the dispatcher's part. Nothing while Redis is away.
pub async fn rewrite_as_before(bus: &Bus, id: &str) {
    let key = record_key(&EgressId::parse(id).unwrap());
    let Ok(Some(stored)) = bus.bytes(&key).await else { return };
    let mut record: Value = serde_json::from_slice(&stored).unwrap();
    record.as_object_mut().unwrap().remove("format");
    if let Some(dispatch) = record.get_mut("dispatch").and_then(Value::as_object_mut) {
        dispatch.remove("unanswered");
    }
    let _ = bus.replace_bytes(&key, &serde_json::to_vec(&record).unwrap()).await;
}
