//! The client against written answers of a server.

use proptest::prelude::*;

use super::*;

const URL: &str = "rtmp://h/app/canary-key?token=canary-token";

fn client() -> RtmpClient {
    RtmpClient::new(RtmpUrl::parse(URL).unwrap())
}

fn handshake() -> Vec<u8> {
    [&[VERSION][..], &[1; HANDSHAKE_BYTES], &[2; HANDSHAKE_BYTES]].concat()
}

fn answer(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ChunkWriter::default().write(&mut out, 3, kind, 0, 0, body);
    out
}

fn command(name: &str, id: f64, arguments: &[AmfValue]) -> Vec<u8> {
    let values = [&[AmfValue::text(name), AmfValue::Number(id)], arguments].concat();
    answer(RtmpMessage::COMMAND, &amf::encode(&values))
}

fn status(level: &str, code: &str, description: &str) -> AmfValue {
    let member = |(name, text): (&str, &str)| (name.to_owned(), AmfValue::text(text));
    AmfValue::Object([("level", level), ("code", code), ("description", description)].map(member).into())
}

/// Everything that waits, sent.
fn flushed(client: &mut RtmpClient) -> Vec<u8> {
    let out = client.pending().to_vec();
    client.advance(out.len());
    out
}

/// What the client sent, as a server reads it.
fn commands(reader: &mut ChunkReader, client: &mut RtmpClient) -> Vec<String> {
    let messages = reader.push(&flushed(client)).unwrap();
    let name = |message: &RtmpMessage| match message.kind {
        RtmpMessage::COMMAND => amf::decode(&message.body).unwrap()[0].as_text().unwrap().to_owned(),
        kind => kind.to_string(),
    };
    messages.iter().map(name).collect()
}

/// A client whose stream was accepted, and the reader of what it sends.
fn live() -> (RtmpClient, ChunkReader) {
    let (mut client, mut reader) = (client(), ChunkReader::default());
    assert_eq!(flushed(&mut client).len(), 1 + HANDSHAKE_BYTES);
    assert_eq!(client.receive(&handshake()), Ok(vec![]));
    let first = flushed(&mut client);
    assert_eq!(first[..HANDSHAKE_BYTES], [1; HANDSHAKE_BYTES]);
    let messages = reader.push(&first[HANDSHAKE_BYTES..]).unwrap();
    assert_eq!(messages.iter().map(|message| message.kind).collect::<Vec<_>>(), [1, 20, 5]);
    let connect = amf::decode(&messages[1].body).unwrap();
    assert_eq!(connect[2].member("tcUrl").and_then(AmfValue::as_text), Some("rtmp://h:1935/app"));
    client.receive(&command("_result", 1.0, &[AmfValue::Null, status("status", "", "")])).unwrap();
    assert_eq!(commands(&mut reader, &mut client), ["releaseStream", "FCPublish", "createStream"]);
    client.receive(&command("_error", 2.0, &[AmfValue::Null, status("error", "x", "")])).unwrap();
    client.receive(&command("_result", 4.0, &[AmfValue::Null, AmfValue::Number(7.0)])).unwrap();
    assert_eq!(commands(&mut reader, &mut client), ["publish"]);
    assert_eq!((client.is_live(), client.step()), (false, "publish"));
    let start = command("onStatus", 0.0, &[AmfValue::Null, status("status", "NetStream.Publish.Start", "")]);
    assert_eq!(client.receive(&start), Ok(vec![RtmpEvent::Published]));
    assert!(client.is_live());
    (client, reader)
}

#[test]
fn a_stream_is_published_and_ended() {
    let (mut client, mut reader) = live();
    client.send(&FlvTag { kind: RtmpMessage::VIDEO, time_ms: 33, body: vec![0x17; 5000] });
    let sent = reader.push(&flushed(&mut client)).unwrap();
    assert_eq!(sent, [RtmpMessage { kind: 9, stream: 7, time_ms: 33, body: vec![0x17; 5000] }]);
    client.end();
    assert_eq!(commands(&mut reader, &mut client), ["FCUnpublish", "deleteStream"]);
    client.send(&FlvTag { kind: RtmpMessage::VIDEO, time_ms: 66, body: vec![] });
    assert!(client.pending().is_empty());
}

#[test]
fn answers_may_come_byte_by_byte() {
    let mut client = client();
    let mut bytes = handshake();
    bytes.extend(command("_result", 1.0, &[]));
    for byte in bytes {
        assert_eq!(client.receive(&[byte]), Ok(vec![]));
    }
    assert_eq!(client.step(), "createStream");
}

#[test]
fn pings_and_acknowledgements_go_both_ways() {
    let (mut client, mut reader) = live();
    client.receive(&answer(RtmpMessage::USER_CONTROL, &[0, 6, 1, 2, 3, 4])).unwrap();
    client.ping(9);
    let sent = reader.push(&flushed(&mut client)).unwrap();
    assert_eq!(sent.iter().map(|m| &m.body[..]).collect::<Vec<_>>(), [[0, 7, 1, 2, 3, 4], [0, 6, 0, 0, 0, 9]]);
    let pong = client.receive(&answer(RtmpMessage::USER_CONTROL, &[0, 7, 0, 0, 0, 9]));
    assert_eq!(pong, Ok(vec![RtmpEvent::Pong]));
    let acked = client.receive(&answer(RtmpMessage::ACKNOWLEDGEMENT, &2000u32.to_be_bytes()));
    assert_eq!(acked, Ok(vec![RtmpEvent::Acknowledged { bytes: 2000 }]));
    // More than a window of the server's: it gets an acknowledgement of all that came.
    client.receive(&answer(RtmpMessage::WINDOW_SIZE, &100u32.to_be_bytes())).unwrap();
    let acked = reader.push(&flushed(&mut client)).unwrap();
    assert_eq!(acked[0].kind, RtmpMessage::ACKNOWLEDGEMENT);
    assert_eq!(acked[0].body, (client.received as u32).to_be_bytes());
}

#[test]
fn counts_of_32_bits_are_extended() {
    assert_eq!(extended(5_000_000_000, 5_000_000_000u64 as u32), 5_000_000_000);
    assert_eq!(extended((1 << 32) + 5, u32::MAX), u64::from(u32::MAX));
    assert_eq!(extended(100, 150), 100);
    assert_eq!(extended(100, 50), 50);
}

#[test]
fn a_refusal_is_told_in_the_servers_text_without_the_key() {
    let error = status("error", "NetStream.Publish.BadName", "canary-key is\nin use");
    let told = client_in_connect().receive(&command("_error", 1.0, &[AmfValue::Null, error.clone()]));
    let refused = |description: &str| RtmpFault::Refused {
        code: "NetStream.Publish.BadName".to_owned(),
        description: description.to_owned(),
    };
    assert_eq!(told, Err(refused("{...} isin use")));
    let (mut client, _) = live();
    let told = client.receive(&command("onStatus", 0.0, &[AmfValue::Null, error]));
    assert_eq!(told, Err(refused("{...} isin use")));
    let empty = client_in_connect().receive(&command("_error", 1.0, &[]));
    assert_eq!(empty, Err(RtmpFault::Refused { code: "no code".to_owned(), description: String::new() }));
}

fn client_in_connect() -> RtmpClient {
    let mut client = client();
    client.receive(&handshake()).unwrap();
    client
}

#[test]
fn an_end_of_the_connection_means_something_else_at_each_stage() {
    let broken = |client: &RtmpClient| client.broken(true, "gone".to_owned());
    assert_eq!(broken(&client()), RtmpFault::Handshake { message: "gone".to_owned() });
    assert_eq!(broken(&client_in_connect()), RtmpFault::Closed { step: "connect" });
    assert_eq!(broken(&live().0), RtmpFault::Lost { message: "gone".to_owned() });
    assert_eq!(client_in_connect().broken(false, "gone".to_owned()), RtmpFault::Lost { message: "gone".to_owned() });
    let told = client().receive(b"HTTP/1.1 400 Bad Request");
    assert!(matches!(told, Err(RtmpFault::Handshake { .. })), "{told:?}");
}

#[test]
fn nothing_a_client_prints_has_the_key() {
    let printed = format!("{:?}", client());
    assert!(!printed.contains("canary"), "{printed}");
}

proptest! {
    #[test]
    fn any_answer_is_survived(
        stage in 0u8..3,
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(3), Just(20), any::<u8>()], 0..1500),
        command in proptest::collection::vec(prop_oneof![0u8..12, any::<u8>()], 0..300),
    ) {
        let mut client = match stage {
            0 => client(),
            1 => client_in_connect(),
            _ => live().0,
        };
        let _ = client.receive(&answer(RtmpMessage::COMMAND, &command));
        let _ = client.receive(&bytes);
        prop_assert!(client.pending().len() < 64 << 10);
    }
}
