use super::fake::{FakeBackends, FakePlane, Log};
use super::jobs::{Ended, Jobs, Product};
use super::{Binding, DownScript};
use crate::model::ClientId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Waits until the descriptor is readable, at most five seconds.
fn readable(jobs: &Jobs) -> bool {
    let mut fds = [PollFd::new(jobs.fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(5000u16)).unwrap() == 1
}

#[test]
fn a_job_that_ends_makes_the_descriptor_readable_once() {
    let mut jobs = Jobs::new().unwrap();
    let ticket = jobs.start(Duration::from_secs(10), || Product::Closed).unwrap();
    assert!(readable(&jobs));
    let ended = jobs.ended();
    assert!(matches!(ended[..], [Ended::Done(done, Product::Closed)] if done == ticket));
    let mut fds = [PollFd::new(jobs.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0);
    assert!(!jobs.busy());
}

#[test]
fn a_job_that_takes_too_long_is_given_up_and_its_product_comes_late() {
    let mut jobs = Jobs::new().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let ticket = jobs
        .start(Duration::from_millis(5), move || {
            let _ = wait.recv();
            Product::Closed
        })
        .unwrap();
    assert!(readable(&jobs));
    assert!(matches!(jobs.ended()[..], [Ended::TimedOut(late)] if late == ticket));
    go.send(()).unwrap();
    assert!(readable(&jobs));
    assert!(matches!(jobs.ended()[..], [Ended::TooLate(Product::Closed)]));
}

#[test]
fn the_end_runs_all_scripts_but_does_not_wait_for_ever() {
    let log = Arc::new(Log::default());
    let plane = Box::new(FakePlane::new(log.clone()));
    let mut binding = Binding::new(plane, Arc::new(FakeBackends(log.clone()))).unwrap();
    for n in 1..=3 {
        binding.owe(ClientId(n), DownScript { path: "/down".into(), ifname: format!("t{n}") });
    }
    binding.end();
    let mut calls = log.calls();
    calls.sort();
    assert_eq!(calls, ["down /down t1", "down /down t2", "down /down t3"]);

    binding.owe(ClientId(4), DownScript { path: "/hangs".into(), ifname: "t4".into() });
    log.hold(true);
    let began = Instant::now();
    binding.end();
    assert!(began.elapsed() < Duration::from_secs(2));
    log.hold(false);
}
