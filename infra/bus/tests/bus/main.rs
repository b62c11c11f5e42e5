//! One suite on two fixtures: what the bus promises holds in memory and on real Redis. Then what only Redis can do.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests")]

mod fixture;
mod scripted_handler;
mod suite;
mod golden;
mod faults;
mod topologies;

use fixture::{MemoryFixture, RedisFixture};

/// Every function of the suite as a test of its own, on each fixture.
macro_rules! on_both {
    ($($module:ident :: $promise:ident,)*) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $promise() {
                super::suite::$module::$promise(&super::MemoryFixture::start()).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $promise() {
                super::suite::$module::$promise(&super::RedisFixture::start().await).await;
            })*
        }
    };
}

on_both! {
    calls::a_call_is_bid_for_granted_and_answered,
    calls::a_bid_of_one_wins_at_once_and_a_higher_one_over_a_lower,
    calls::who_bids_nothing_is_never_granted,
    calls::a_call_of_a_queue_is_bid_for_once,
    calls::who_declines_leaves_the_call_to_others,
    calls::who_waits_leaves_the_call_to_the_faster,
    calls::all_answer_a_multi_call,
    calls::a_pattern_serves_every_topic,
    calls::every_error_code_travels,
    calls::a_handler_that_panics_is_an_error_and_not_a_silence,
    calls::after_leaving_no_bid_is_made_and_the_call_in_hand_is_answered,
    foreign_messages::a_malformed_message_is_logged_once_and_the_next_call_is_served,
    foreign_messages::what_newer_senders_add_changes_nothing,
    foreign_messages::a_request_nobody_can_read_is_refused_without_a_bid,
    foreign_messages::time_allowed_counts_from_receipt,
    foreign_messages::a_reader_that_never_reads_holds_up_nobody,
    foreign_messages::an_announcement_needs_no_grant,
    io::a_call_nobody_hears_is_made_again,
    io::what_livekit_server_knows_is_not_created_again,
    io::the_timeout_ends_and_a_refusal_is_final,
    keys::of_many_makers_one_makes_the_record,
    keys::racing_updates_all_count,
    keys::a_finished_record_is_not_live_and_goes_away,
    keys::fields_of_a_newer_version_stay,
    keys::what_cannot_be_read_is_an_error_and_left_alone,
    keys::a_ticket_is_taken_once,
    keys::a_ticket_that_cannot_be_used_is_not_lost_by_looking_at_it,
    keys::a_ticket_that_is_renewed_outlives_its_first_time,
    keys::a_take_whose_answer_was_lost_is_repeated_by_its_taker_alone,
    keys::a_heartbeat_fades_and_an_older_attempt_is_not_heard,
    keys::the_state_of_uploads_is_the_latest_attempts_until_it_is_closed,
    keys::a_ticket_is_copied_for_another_attempt,
    keys::a_probes_report_grows_and_never_shrinks,
    keys::a_ticket_that_nobody_has_taken_is_changed_where_it_is,
    tasks::caps_hold_whoever_asks_and_a_closed_task_makes_room,
    tasks::launches_keep_their_pace_and_slow_down_when_told,
    tasks::a_task_is_closed_once_and_its_line_is_kept,
    tasks::an_operators_switch_is_read_by_all,
    tasks::a_lease_has_one_holder_and_a_number_that_grows,
    time::a_host_whose_clock_is_wrong_sends_and_stamps_by_redis_time,
    time::an_installation_has_one_id_for_all_its_makers,
    time::a_server_tells_its_version_and_what_it_evicts,
}
