//! The proxy as a browser uses it: real connections, real servers on this machine, names of the guard's table.

use std::time::Duration;

use spillway_guard::FixedNames;
use spillway_guard::forms::{self, FORMS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A server that takes so many connections, one after the other, keeps what came up to `until`, and answers.
async fn server(count: usize, until: &'static str, answer: &'static str) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut received = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = timeout(TIMEOUT, listener.accept()).await.expect("a connection").unwrap();
            let mut bytes = Vec::new();
            while !bytes.ends_with(until.as_bytes()) && stream.read_buf(&mut bytes).await.unwrap() > 0 {}
            stream.write_all(answer.as_bytes()).await.unwrap();
            received.push(String::from_utf8(bytes).unwrap());
        }
        received
    });
    (port, serving)
}

/// All that the proxy answers to these bytes; the connection ends by itself.
async fn asked(proxy: &GuardProxy, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
    answer
}

fn proxy(allow: &[&str], names: FixedNames) -> GuardProxy {
    let rules = GuardRules { allow: allow.iter().map(|entry| (*entry).to_owned()).collect() };
    GuardProxy::with_guard(Guard::new(&rules).with_names(names), None).unwrap()
}

#[tokio::test]
async fn no_form_of_the_table_is_let_through() {
    let proxy = proxy(&[], forms::names());
    for form in FORMS {
        let host = form.authority();
        let absolute = format!("GET http://{host}/canary HTTP/1.1\r\nHost: {host}\r\n\r\n");
        // Chromium sends ASCII; others are refused as what they are: no request.
        let expected = if host.is_ascii() { "HTTP/1.1 403 " } else { "HTTP/1.1 400 " };
        for request in [format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n"), absolute] {
            let answer = asked(&proxy, &request).await;
            assert!(answer.starts_with(expected), "{}: {answer}", form.host);
        }
        if host.is_ascii() {
            let refusals = proxy.take_refusals();
            assert_eq!(refusals.len(), 2, "{}: one for each port", form.host);
            assert!(refusals.iter().all(|refusal| refusal.to_string().contains(" is refused: ")), "{refusals:?}");
            let told = proxy.failure(&format!("https://{host}/canary")).expect("it is known why");
            assert!(told.is_refusal(), "{}: {told}", form.host);
        }
    }
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_to_what_is_open() {
    let (port, received) = server(3, "hello", "welcome").await;
    let proxy = proxy(&[&format!("127.0.0.1:{port}")], forms::names());
    for host in ["127.0.0.1", "0x7f.1", "loopback.example"] {
        let answer = asked(&proxy, &format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\nhello")).await;
        assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\nwelcome", "{host}");
    }
    assert_eq!(received.await.unwrap(), ["hello"; 3]);
    assert!(proxy.take_refusals().is_empty());
}

#[tokio::test]
async fn a_request_is_passed_on_and_its_connection_ends() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\
                  Content-Length: 4\r\n\r\nbody";
    let (port, received) = server(1, "payload", answer).await;
    let proxy = proxy(&["127.0.0.1"], FixedNames::default());
    let answer = asked(
        &proxy,
        &format!(
            "POST http://127.0.0.1:{port}/a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nProxy-Connection: keep-alive\r\n\
             Content-Length: 7\r\n\r\npayload"
        ),
    )
    .await;
    let expected = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\
                    Connection: close\r\n\r\nbody";
    assert_eq!(answer, expected);
    let head =
        format!("POST /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 7\r\nConnection: close\r\n\r\n");
    assert_eq!(received.await.unwrap(), [head + "payload"]);
}

/// The proxy is no open door to itself, and answers nothing but requests to a proxy.
#[tokio::test]
async fn what_is_no_request_is_refused() {
    let proxy = proxy(&[], FixedNames::default());
    for request in ["GET / HTTP/1.1\r\n\r\n", "GET https://a.example/ HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n"] {
        assert!(asked(&proxy, request).await.starts_with("HTTP/1.1 400 "), "{request:?}");
    }
    let own = asked(&proxy, &format!("GET http://{}/ HTTP/1.1\r\n\r\n", proxy.address())).await;
    assert!(own.starts_with("HTTP/1.1 403 "), "{own}");
    // It is cut off in the middle.
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let long = format!("GET http://a.example/ HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_name_with_two_answers_is_connected_to_where_it_was_checked() {
    let (port, received) = server(1, "hello", "welcome").await;
    let names = FixedNames::default().with("rebinds.example", &["127.0.0.1", "169.254.169.254"]);
    let proxy = proxy(&["127.0.0.1"], names);
    let request = format!("CONNECT rebinds.example:{port} HTTP/1.1\r\n\r\nhello");
    assert!(asked(&proxy, &request).await.ends_with("welcome"));
    assert!(asked(&proxy, &request).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(received.await.unwrap(), ["hello"]);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_no_refusal() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let proxy = proxy(&["127.0.0.1"], FixedNames::default());
    for (host, told) in [
        (format!("gone.example:{closed}"), "gone.example cannot be resolved: "),
        (format!("127.0.0.1:{closed}"), "cannot connect to 127.0.0.1: "),
    ] {
        let answer = asked(&proxy, &format!("CONNECT {host} HTTP/1.1\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let failure = proxy.failure(&format!("http://{host}/")).unwrap().to_string();
        assert!(failure.starts_with(told), "{failure}");
    }
    assert!(proxy.take_refusals().is_empty());
}

/// Another proxy of ours is the network's: the first decides, the second connects.
#[tokio::test]
async fn public_hosts_go_through_the_networks_proxy_and_others_do_not() {
    let (inside, kept) = server(1, "hello", "welcome").await;
    let (outside, received) = server(2, "hello", "welcome").await;
    // Out there the names are other servers', here they are public.
    let their_names =
        FixedNames::default().with("public.example", &["127.0.0.1"]).with("unknown.example", &["127.0.0.1"]);
    let theirs = GuardProxy::with_guard(Guard::unrestricted().with_names(their_names), None).unwrap();
    let upstream = UpstreamProxy::parse(&Secret::new(format!("http://{}", theirs.address()))).unwrap();
    let guard = Guard::new(&GuardRules { allow: vec!["127.0.0.1".to_owned()] }).with_names(forms::names());
    let ours = GuardProxy::with_guard(guard, Some(upstream)).unwrap();
    for host in ["public.example", "unknown.example"] {
        let tunnel = asked(&ours, &format!("CONNECT {host}:{outside} HTTP/1.1\r\n\r\nhello")).await;
        assert_eq!(tunnel, "HTTP/1.1 200 Connection established\r\n\r\nwelcome", "{host}");
    }
    let straight = asked(&ours, &format!("CONNECT 127.0.0.1:{inside} HTTP/1.1\r\n\r\nhello")).await;
    assert!(straight.ends_with("welcome"), "{straight}");
    for host in ["private.example", "10.0.0.5", "metadata.google.internal"] {
        let refused = asked(&ours, &format!("CONNECT {host}:{outside} HTTP/1.1\r\n\r\n")).await;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{host}: {refused}");
    }
    assert_eq!((kept.await.unwrap().len(), received.await.unwrap().len()), (1, 2));
}

#[tokio::test]
async fn the_networks_proxy_gets_its_credentials_and_its_refusal_is_told() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let (port, received) = server(2, "\r\n\r\n", answer).await;
    let upstream = Some(Secret::new(format!("http://me:canary@127.0.0.1:{port}")));
    let proxy = GuardProxy::start(&GuardOptions { upstream, ..GuardOptions::default() }).unwrap();
    assert!(!format!("{proxy:?}").contains("canary"));
    // A public address, which only the network's proxy is asked for.
    let tunnel = asked(&proxy, "CONNECT 93.184.216.34:443 HTTP/1.1\r\n\r\n").await;
    assert!(tunnel.starts_with("HTTP/1.1 502 "), "{tunnel}");
    let told = proxy.failure("https://93.184.216.34/").unwrap().to_string();
    assert_eq!(told, "cannot connect to 93.184.216.34: the network's proxy answers 407");
    let plain = asked(&proxy, "GET http://93.184.216.34/x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 407 "), "{plain}");
    let received = received.await.unwrap();
    assert!(received[0].starts_with("CONNECT 93.184.216.34:443 HTTP/1.1\r\n"), "{}", received[0]);
    assert!(received[1].starts_with("GET http://93.184.216.34/x HTTP/1.1\r\n"), "{}", received[1]);
    assert!(
        received.iter().all(|head| head.contains("\r\nProxy-Authorization: Basic bWU6Y2FuYXJ5\r\n")),
        "{received:?}"
    );
}

#[test]
fn the_recordings_own_servers_are_opened_at_their_ports() {
    let mut options = GuardOptions::default();
    for url in ["wss://livekit.internal", "ws://[::1]:7880/rtc", "http://127.0.0.1:7990/?x", "mux://key"] {
        options.open(url);
    }
    assert_eq!(options.rules.allow, ["livekit.internal:443", "[::1]:7880", "127.0.0.1:7990"]);
    let guard = Guard::new(&options.rules);
    assert!(guard.check("[::1]", 7880).is_ok() && guard.check("127.0.0.1", 7880).is_err());
}

#[test]
fn an_end_waits_for_nothing() {
    let proxy = proxy(&[], FixedNames::default());
    let _idle = std::net::TcpStream::connect(proxy.address()).unwrap();
    let begun = std::time::Instant::now();
    drop(proxy);
    assert!(begun.elapsed() < Duration::from_secs(2));
}
