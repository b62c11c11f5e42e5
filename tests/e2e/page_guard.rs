//! Chromium behind the proxy of a page, in a network namespace of its own where every address that must not be reached has a
//! server that notes who comes: the guard's table of forms, and every way in which a page can ask for a host. The same page
//! with everything opened shows that the servers would have noted it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_guard::forms::FORMS;
use spillway_guard::{GuardHost, GuardRules};
use spillway_media::source::page::guard::{GuardOptions, GuardProxy};
use spillway_tests::browser::OpenPage;
use spillway_tests::process::eventually;
use spillway_tests::servers::canaries::Canaries;
use spillway_tests::servers::dns_server::DnsServer;

use crate::harness::{block_on, exclusive, unless};

const PAGE: &str = include_str!("../assets/guard.html");
/// Set for the process inside of the namespace: the folder of its files.
const INSIDE: &str = "SPILLWAY_GUARD_LAB";
/// A public address, which is this namespace's own here.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const TCP_PORTS: [u16; 3] = [80, 443, 8080];
/// STUN, and a candidate of WebRTC.
const UDP_PORTS: [u16; 3] = [3478, 3479, 4433];
/// Chromium's own second layer, which would hide the first.
const LOCAL_NETWORK_CHECKS: &str = "LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,\
    LocalNetworkAccessChecksWebSockets,LocalNetworkAccessChecksWebRTC";
/// Datagrams would go past the proxy (page.md 7.1: the command line's switch of this name does nothing).
const PREFERENCES: &str = r#"{"webrtc":{"ip_handling_policy":"disable_non_proxied_udp","multiple_routes_enabled":false,
    "nonproxied_udp_enabled":false}}"#;

pub fn cases() -> Vec<Trial> {
    vec![unless(left_out(), exclusive("page_guard::no_form_and_no_way_of_a_page_is_let_through", in_a_namespace))]
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--mount"]);
    command
}

/// A machine that forbids it. What is missing on it is the set-up's to install, and fails.
fn left_out() -> Option<String> {
    let made = unshare().arg("true").output().ok().filter(|made| !made.status.success())?;
    Some(format!("no network namespace can be made here: {}", String::from_utf8_lossy(&made.stderr).trim()))
}

fn in_a_namespace() -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let own = std::env::current_exe().context("where am I")?;
    let status = unshare().arg(own).env(INSIDE, folder.path()).status().context("start unshare")?;
    ensure!(status.success(), "inside of the namespace: {status}");
    Ok(())
}

/// The other side of [`in_a_namespace`]; `None`: this process is not inside.
pub fn inside() -> Option<ExitCode> {
    let folder = std::env::var_os(INSIDE)?;
    Some(match block_on(visits(Path::new(&folder))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

async fn visits(folder: &Path) -> Result<()> {
    network(folder)?;
    let dns = DnsServer::start(SocketAddr::from(([127, 0, 0, 1], 53))).await?;
    dns.set("page.example", &[&[PUBLIC]]);
    for form in FORMS.iter().filter(|form| !form.addresses.is_empty()) {
        let addresses: Vec<IpAddr> = form.addresses.split(' ').filter_map(|address| address.parse().ok()).collect();
        dns.set(form.host.trim_end_matches('.'), &[addresses.as_slice()]);
    }
    let hosts: Vec<String> = FORMS.iter().map(|form| form.authority()).collect();
    let page = PAGE.replace("@HOSTS@", &json!(hosts).to_string());
    let canaries = Canaries::start(PUBLIC, page, &TCP_PORTS, &UDP_PORTS).await?;

    let rebinds = || dns.set("rebinds.example", &[&[PUBLIC], &[METADATA]]);
    rebinds();
    let (reached, refused) = visit(&folder.join("closed"), &canaries, GuardRules::default()).await?;
    println!("closed: {} refused hosts told, reached {reached:?}", refused.len());
    ensure!(reached.is_empty(), "a page has reached {reached:?}");
    ensure!(refused.len() >= 30 && refused.iter().all(|told| told.contains(" is refused: ")), "told: {refused:?}");

    rebinds();
    let (reached, refused) = visit(&folder.join("open"), &canaries, GuardRules::unrestricted()).await?;
    let hosts = reached.iter().filter(|hit| hit.starts_with("/host-")).count();
    println!("open: {hosts} hosts and {} other ways were noted: {reached:?}", reached.len() - hosts);
    ensure!(refused.is_empty(), "told: {refused:?}");
    // A browser refuses some by itself (multicast, broadcast), and not every address can be this machine's.
    ensure!(hosts >= 45, "only {hosts} of {} hosts would have been noted: {reached:?}", FORMS.len());
    for way in
        ["/img", "/iframe", "/script", "/websocket", "/worker.js", "/redirected", "/port", "/post", "/navigation"]
    {
        ensure!(reached.iter().any(|hit| hit.starts_with(&format!("{way} at "))), "{way} was not noted: {reached:?}");
    }
    Ok(())
}

/// Interfaces and resolver. An address that this machine cannot have is left out.
fn network(folder: &Path) -> Result<()> {
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().context("start ip");
    ensure!(ip(&["link", "set", "lo", "up"])?.status.success(), "lo does not come up");
    let mut addresses = BTreeSet::from([PUBLIC, METADATA]);
    for form in FORMS {
        addresses.extend(form.addresses.split(' ').filter_map(|address| address.parse::<IpAddr>().ok()));
        if let Some(GuardHost::Address(address)) = GuardHost::parse(form.host) {
            addresses.insert(address.to_canonical());
        }
    }
    for address in addresses.iter().filter(|address| !address.is_loopback()) {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        ip(&["address", "add", &format!("{address}/{bits}"), "dev", "lo"])?;
    }
    // WebRTC looks for a way out before it looks for candidates.
    ip(&["link", "add", "guard0", "type", "veth", "peer", "name", "guard1"])?;
    for arguments in [
        ["link", "set", "guard1", "up"].as_slice(),
        &["address", "add", "93.184.217.2/24", "dev", "guard0"],
        &["link", "set", "guard0", "up"],
        &["route", "add", "default", "via", "93.184.217.1", "dev", "guard0"],
    ] {
        ip(arguments)?;
    }
    let resolver = folder.join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n").context("write resolv.conf")?;
    let mounted = Command::new("mount").arg("--bind").arg(&resolver).arg("/etc/resolv.conf").status();
    ensure!(mounted.context("start mount")?.success(), "/etc/resolv.conf is not replaced");
    Ok(())
}

/// Opens the page in a browser of its own, and waits until it has tried everything. Gives what was reached, and what the proxy
/// has refused.
async fn visit(folder: &Path, canaries: &Canaries, rules: GuardRules) -> Result<(BTreeSet<String>, Vec<String>)> {
    let profile = folder.join("profile/Default");
    std::fs::create_dir_all(&profile).context("make a profile")?;
    std::fs::write(profile.join("Preferences"), PREFERENCES).context("write the preferences")?;
    let proxy = GuardProxy::start(&GuardOptions { rules, upstream: None }).context("start the proxy")?;
    canaries.take_said();
    let arguments = [
        format!("--proxy-server=http://{}", proxy.address()),
        "--proxy-bypass-list=<-loopback>".to_owned(),
        "--disable-popup-blocking".to_owned(),
        "--unsafely-treat-insecure-origin-as-secure=http://page.example".to_owned(),
        format!("--disable-features={LOCAL_NETWORK_CHECKS}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let page = OpenPage::open(folder, "http://page.example/", &arguments)?;
    let said =
        eventually("the page has tried everything", Duration::from_secs(60), || async { Ok(canaries.take_said()) });
    let tried = said.await.with_context(|| page.tail())?;
    // The navigation at its end, and what is slow.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(tried.parse().is_ok_and(|tried: usize| tried > FORMS.len() + 20), "it has tried {tried} ways");
    let refused = proxy.take_refusals().iter().map(ToString::to_string).collect();
    drop(page);
    Ok((canaries.take_hits(), refused))
}
