use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn console(text: &str) -> BrowserEvent {
    BrowserEvent::Console(vec![text.to_owned()])
}

fn failed(effects: &[LifeEffect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        LifeEffect::End { why: LifeEnd::Failed { message, .. }, .. } => Some(message.as_str()),
        _ => None,
    })
}

fn loading(awaits_start: bool) -> PageLife {
    let mut life = PageLife::new(awaits_start, awaits_start);
    let effects = life.opened(ms(0));
    assert_eq!(effects, [LifeEffect::Waiting("waiting for the page to load"), LifeEffect::Navigate]);
    life
}

/// Loaded and without an error, at this time.
fn load(life: &mut PageLife, at: u64) -> Vec<LifeEffect> {
    assert_eq!(life.on(BrowserEvent::Document { status: 200, text: "OK".into() }, ms(at)), []);
    assert_eq!(life.on(BrowserEvent::Committed, ms(at)), []);
    assert_eq!(life.on(BrowserEvent::Navigated(Ok(())), ms(at)), []);
    assert_eq!(life.on(BrowserEvent::Loaded, ms(at)), [LifeEffect::Check]);
    life.on(BrowserEvent::Checked(None), ms(at))
}

fn recorded() -> PageLife {
    let mut life = loading(false);
    assert_eq!(load(&mut life, 500), [LifeEffect::Watch, LifeEffect::Begin { at: ms(500) }]);
    life
}

#[test]
fn a_web_page_is_recorded_from_its_load_event_on() {
    let mut life = loading(false);
    assert_eq!(life.on(console("START_RECORDING"), ms(100)), [], "not asked for");
    assert_eq!(load(&mut life, 500), [LifeEffect::Watch, LifeEffect::Begin { at: ms(500) }]);
    assert!(life.has_begun());
    assert_eq!(life.on(console("anything"), ms(900)), []);
    let end = LifeEffect::End { at: ms(1000), why: LifeEnd::Page };
    assert_eq!(life.on(console("END_RECORDING"), ms(1000)), [end]);
    assert_eq!(life.on(BrowserEvent::Gone, ms(1001)), []);
}

#[test]
fn a_page_that_is_awaited_begins_with_its_word() {
    let mut life = loading(true);
    let effects = load(&mut life, 500);
    assert_eq!(effects, [LifeEffect::Watch, LifeEffect::Waiting("waiting for the page's START_RECORDING")]);
    assert_eq!(life.tick(ms(3_600_000)), [LifeEffect::Check], "however long it takes");
    assert_eq!(life.on(BrowserEvent::Checked(None), ms(3_600_001)), []);
    let other = BrowserEvent::Console(vec!["a".into(), "START_RECORDING".into()]);
    assert_eq!(life.on(other, ms(3_600_100)), [LifeEffect::Begin { at: ms(3_600_100) }]);
    assert_eq!(life.on(console("START_RECORDING"), ms(3_600_200)), [], "once");
    // Before the load event: what is still to come is not waited for.
    let mut early = loading(true);
    assert_eq!(early.on(console("START_RECORDING"), ms(10)), [], "of the blank page");
    early.on(BrowserEvent::Committed, ms(100));
    let begun = [LifeEffect::Watch, LifeEffect::Begin { at: ms(200) }];
    assert_eq!(early.on(console("START_RECORDING"), ms(200)), begun);
    assert_eq!(early.on(BrowserEvent::Loaded, ms(5000)), []);
}

#[test]
fn what_cannot_be_loaded_is_said_as_the_peer_does() {
    let refused = "net::ERR_CONNECTION_REFUSED".to_owned();
    for (event, message) in [
        (BrowserEvent::Navigated(Err(refused)), "page load error: net::ERR_CONNECTION_REFUSED (nothing listens there)"),
        (BrowserEvent::Document { status: 404, text: String::new() }, "page load error: Not Found"),
    ] {
        let mut life = loading(false);
        assert_eq!(failed(&life.on(event, ms(10))), Some(message));
        assert_eq!(life.on(BrowserEvent::Loaded, ms(20)), [], "Chromium's page for the error");
    }
    let mut life = loading(true);
    life.on(BrowserEvent::Committed, ms(5));
    life.on(BrowserEvent::Loaded, ms(10));
    let found = life.on(BrowserEvent::Checked(Some("broken".into())), ms(12));
    assert_eq!(failed(&found), Some("template error: broken"));
    // One that does not get into its room says so while its start is waited for.
    let mut life = loading(true);
    load(&mut life, 100);
    let found = life.on(BrowserEvent::Checked(Some("no way".into())), ms(8000));
    assert_eq!(failed(&found), Some("template error: no way"));
    // A later document with an error is the page's own affair.
    let mut life = recorded();
    assert_eq!(life.on(BrowserEvent::Document { status: 500, text: String::new() }, ms(900)), []);
}

#[test]
fn a_host_that_may_not_be_reached_is_told_as_that() {
    for (is_refused, code) in [(true, "permission_denied"), (false, "invalid_argument")] {
        let mut life = loading(false);
        let message = "page load error: 10.0.0.5 is refused".to_owned();
        let end = LifeEffect::End { at: ms(10), why: LifeEnd::Failed { code, message } };
        assert_eq!(life.not_reached(is_refused, "10.0.0.5 is refused", ms(10)), [end]);
    }
    // Anything else that a page asks of its own host is its own affair.
    assert_eq!(recorded().not_reached(true, "10.0.0.5 is refused", ms(5000)), []);
}

#[test]
fn loading_is_tried_three_times() {
    let closed = || BrowserEvent::Navigated(Err("net::ERR_CONNECTION_CLOSED".into()));
    let mut life = loading(false);
    assert_eq!(life.on(closed(), ms(10)), [LifeEffect::Navigate]);
    assert_eq!(life.tick(ms(30_009)), []);
    assert_eq!(life.tick(ms(30_010)), [LifeEffect::Navigate]);
    assert!(failed(&life.on(closed(), ms(30_020))).is_some());
    let mut life = loading(false);
    assert_eq!((life.tick(ms(30_000)).len(), life.tick(ms(60_000)).len()), (1, 1));
    assert_eq!(failed(&life.tick(ms(90_000))), Some("page load error: timed out"));
}

#[test]
fn a_crash_costs_a_gap_and_the_second_one_the_recording() {
    let mut life = recorded();
    let held = [LifeEffect::Hold { from: ms(2250) }, LifeEffect::Restart];
    assert_eq!(life.on(BrowserEvent::Crashed("killed 9".into()), ms(2500)), held);
    assert_eq!(life.on(BrowserEvent::Gone, ms(2510)), [], "the same one");
    assert_eq!(life.opened(ms(3000)).len(), 2);
    let note = "the page crashed (killed 9) 2.0 s after the beginning and was loaded again: 1.0 s are missing";
    let back = [
        LifeEffect::Watch,
        LifeEffect::Release { at: ms(3500) },
        LifeEffect::Gap(ms(1000)),
        LifeEffect::Noted(note.into()),
    ];
    assert_eq!(load(&mut life, 3500), back);
    let over = life.on(BrowserEvent::Hung(ms(4500)), ms(9000));
    let message = "the page did not answer any more, after it had been loaded again".to_owned();
    assert_eq!(over, [LifeEffect::End { at: ms(9000), why: LifeEnd::Failed { code: "internal", message } }]);
}

#[test]
fn a_hang_is_missing_from_the_last_answer_on() {
    let mut life = recorded();
    let held = [LifeEffect::Hold { from: ms(8750) }, LifeEffect::Restart];
    assert_eq!(life.on(BrowserEvent::Hung(ms(4500)), ms(9000)), held);
    life.opened(ms(9200));
    assert!(load(&mut life, 10_000).contains(&LifeEffect::Gap(ms(5500))));
}

#[test]
fn a_recording_ends_where_its_page_was_lost_when_it_does_not_come_back() {
    let mut life = recorded();
    life.on(BrowserEvent::Gone, ms(2000));
    life.opened(ms(2500));
    let effects = life.on(BrowserEvent::Navigated(Err("net::ERR_CONNECTION_REFUSED".into())), ms(2600));
    assert!(matches!(effects.as_slice(), [LifeEffect::End { at, .. }] if *at == ms(2000)), "{effects:?}");
}

#[test]
fn a_page_that_is_back_is_shown_without_its_word_after_a_while() {
    let mut life = loading(true);
    load(&mut life, 100);
    life.on(console("START_RECORDING"), ms(200));
    life.on(BrowserEvent::Crashed("crashed".into()), ms(5000));
    life.opened(ms(5500));
    load(&mut life, 6000);
    assert_eq!(life.tick(ms(15_999)), [LifeEffect::Check]);
    let effects = life.tick(ms(16_000));
    assert!(effects.contains(&LifeEffect::Release { at: ms(16_000) }), "{effects:?}");
}

#[test]
fn before_the_beginning_a_crash_is_only_noted() {
    let mut life = loading(false);
    let effects = life.on(BrowserEvent::Crashed("crashed".into()), ms(100));
    assert!(matches!(effects.as_slice(), [LifeEffect::Noted(_), LifeEffect::Restart]), "{effects:?}");
    life.opened(ms(500));
    assert_eq!(load(&mut life, 900), [LifeEffect::Watch, LifeEffect::Begin { at: ms(900) }]);
    assert!(failed(&life.display_gone(ms(1000))).is_some());
    let mut never = PageLife::new(false, false);
    assert_eq!(failed(&never.cannot_start("no browser".into(), ms(1))), Some("no browser"));
}

#[test]
fn dialogs_and_windows_are_told_once() {
    let mut life = recorded();
    let dialog = || BrowserEvent::Dialog { kind: "alert".into(), message: "x".into() };
    assert_eq!((life.on(dialog(), ms(1)).len(), life.on(dialog(), ms(2)).len()), (1, 0));
    let window = || BrowserEvent::PopUp;
    assert_eq!((life.on(window(), ms(1)).len(), life.on(window(), ms(2)).len()), (1, 0));
}

fn any_event() -> impl Strategy<Value = BrowserEvent> {
    prop_oneof![
        Just(BrowserEvent::Committed),
        Just(BrowserEvent::Loaded),
        (100i64..600).prop_map(|status| BrowserEvent::Document { status, text: String::new() }),
        Just(BrowserEvent::Navigated(Ok(()))),
        Just(BrowserEvent::Navigated(Err("net::ERR_CONNECTION_CLOSED".into()))),
        prop::option::of(Just("broken".to_owned())).prop_map(BrowserEvent::Checked),
        Just(console("START_RECORDING")),
        Just(console("END_RECORDING")),
        Just(BrowserEvent::Exception("x".into())),
        Just(BrowserEvent::PopUp),
        Just(BrowserEvent::Crashed("crashed".into())),
        Just(BrowserEvent::Hung(ms(4500))),
        Just(BrowserEvent::Gone),
    ]
}

proptest! {
    /// In any order of events a recording begins and ends at most once, nothing comes after its end, and a browser is
    /// started again at most once.
    #[test]
    fn it_begins_and_ends_once(
        awaits_start: bool,
        events in prop::collection::vec((0u64..20_000, prop::option::of(any_event())), 1..60),
    ) {
        let mut life = PageLife::new(awaits_start, awaits_start);
        let (mut now, mut begins, mut ends, mut restarts, mut began_at) = (ms(0), 0, 0, 0, None);
        for (wait, event) in events {
            now += ms(wait);
            let mut effects = life.opened(now);
            effects.extend(match event {
                Some(event) => life.on(event, now),
                None => life.tick(now),
            });
            prop_assert!(ends == 0 || effects.is_empty());
            for effect in effects {
                match effect {
                    LifeEffect::Begin { at } => {
                        begins += 1;
                        began_at = Some(at);
                    }
                    LifeEffect::End { at, .. } => {
                        ends += 1;
                        prop_assert!(began_at.is_none_or(|began| at >= began));
                    }
                    LifeEffect::Restart => restarts += 1,
                    LifeEffect::Hold { .. } | LifeEffect::Release { .. } => prop_assert!(begins == 1),
                    _ => {}
                }
            }
        }
        prop_assert!(begins <= 1 && ends <= 1 && restarts <= 1, "{begins} {ends} {restarts}");
    }
}
