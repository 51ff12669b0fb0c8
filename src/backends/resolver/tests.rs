use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

const FOUND: ([u8; 4], u16) = ([192, 0, 2, 7], 0);

const THREADS: usize = 16;

/// Long enough for any machine.
const GENEROUS: Duration = Duration::from_secs(30);

/// A resolver with scripted answers, one for each look-up, and a count of its look-ups.
fn scripted() -> (Resolver, mpsc::Sender<io::Result<Vec<SocketAddr>>>, Arc<AtomicUsize>) {
    let (answer_next, answers) = mpsc::channel();
    let (answers, asked) = (Mutex::new(answers), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    let look_up = move |_: &str| {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = answers.lock().expect("a lock").recv();
        answer.unwrap_or_else(|_| Err(io::Error::other("the test is over")))
    };
    (Resolver::new(THREADS, look_up), answer_next, asked)
}

fn refused() -> io::Result<Vec<SocketAddr>> {
    Err(io::Error::other("no such name"))
}

/// The state of the name in the cache at `time` after now.
fn cached_after(resolver: &Resolver, time: Duration) -> Cached {
    resolver.cached("nas.lan", Instant::now() + time)
}

/// Waits until no look-up is running.
fn settle(resolver: &Resolver) {
    let begun = Instant::now();
    while resolver.state().names.values().any(|entry| entry.lookup.is_some()) {
        assert!(begun.elapsed() < GENEROUS, "the look-up does not end");
        thread::sleep(Duration::from_millis(1));
    }
}

async fn resolved(resolver: &Resolver) -> Result<Vec<SocketAddr>, String> {
    let found = resolver.resolve("nas.lan", Instant::now() + GENEROUS).await;
    found.map(|found| found.to_vec()).map_err(|unresolved| match unresolved {
        Unresolved::Failed(error) => error.to_string(),
        Unresolved::NoAnswer => "no answer".to_owned(),
    })
}

#[tokio::test]
async fn concurrent_requests_share_one_look_up() {
    let (resolver, answer_next, asked) = scripted();
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolved(&resolver).await })
        })
        .collect();
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    for one in waiting {
        assert_eq!(one.await.expect("a task"), Ok(vec![FOUND.into()]));
    }
    // A cached answer is used, and a name in use is looked up again before its answer expires.
    assert!(matches!(cached_after(&resolver, Duration::from_secs(15)), Cached::Addresses(_)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(matches!(cached_after(&resolver, Duration::from_secs(25)), Cached::Addresses(_)));
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    settle(&resolver);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn silent_name_server_costs_the_dial_time_and_few_threads() {
    let (resolver, answer_next, _) = scripted();
    let soon = Instant::now() + Duration::from_millis(50);
    let unresolved = resolver.resolve("nas.lan", soon).await.expect_err("there is no answer");
    assert!(matches!(unresolved, Unresolved::NoAnswer), "{unresolved:?}");
    for name in 0..100 {
        for _ in 0..10 {
            let _ = resolver.cached(&format!("host-{name}.lan"), Instant::now());
        }
    }
    let state = resolver.state();
    assert!(state.threads <= THREADS, "{}", state.threads);
    // Each name once, however many connections ask.
    assert!(state.queue.len() <= 101, "{}", state.queue.len());
    drop((state, answer_next));
    settle(&resolver);
}

#[tokio::test]
async fn stale_answer_is_used_while_look_ups_fail() {
    let (resolver, answer_next, asked) = scripted();
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));

    // A silent name server: the first request waits a moment for a new answer.
    let hour = Duration::from_secs(60 * 60);
    let Cached::Wait(_, Some((addresses, use_stale_at))) = cached_after(&resolver, hour) else {
        panic!("nothing is cached")
    };
    assert_eq!(*addresses, [FOUND.into()]);
    assert!(use_stale_at <= Instant::now() + hour + STALE_AFTER_WAIT);
    answer_next.send(refused()).expect("it listens");
    settle(&resolver);
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // A failing name server: the stale answer is used at once, for a day.
    let at = |time| resolver.cached("nas.lan", Instant::now() + time);
    assert!(matches!(at(Duration::ZERO), Cached::Addresses(_)));
    let Cached::Wait(_, usable) = at(STALE_FOR + hour) else { panic!("it is too old to be used") };
    assert!(usable.is_none());
    drop(answer_next);
    settle(&resolver);
}

#[tokio::test]
async fn failure_is_cached_for_a_second() {
    let (resolver, answer_next, asked) = scripted();
    answer_next.send(refused()).expect("it listens");
    assert_eq!(resolved(&resolver).await, Err("no such name".to_owned()));
    assert!(matches!(cached_after(&resolver, Duration::from_millis(100)), Cached::Failed(_)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(matches!(cached_after(&resolver, Duration::from_secs(2)), Cached::Wait(_, None)));
    answer_next.send(Ok(vec![FOUND.into(); 1000])).expect("it listens");
    settle(&resolver);
    // Only the first addresses are used.
    assert_eq!(resolved(&resolver).await.expect("it is there now").len(), ADDRESSES_MAX);
}

#[tokio::test]
async fn panic_in_a_look_up_is_a_failure() {
    let calls = AtomicUsize::new(0);
    let resolver = Resolver::new(THREADS, move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("a fault, on purpose"),
        _ => Ok(vec![FOUND.into()]),
    });
    assert!(resolved(&resolver).await.expect_err("it failed").contains("fault of the gate"));
    assert!(matches!(cached_after(&resolver, Duration::from_secs(2)), Cached::Wait(..)));
    settle(&resolver);
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));
}

#[tokio::test]
async fn system_resolver_reads_the_hosts_file() {
    let resolver = Resolver::system(1);
    let found = resolver.resolve("localhost", Instant::now() + GENEROUS).await.expect("in every hosts file");
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 0), "{found:?}");
}

/// A resolver that follows the name `nas.lan`, and is asked for its next look-ups by hand.
fn following() -> (Resolver, mpsc::Sender<io::Result<Vec<SocketAddr>>>, Arc<AtomicUsize>) {
    let (resolver, answer_next, asked) = scripted();
    resolver.follow(["nas.lan"]);
    (resolver, answer_next, asked)
}

/// When the name is looked up next, after a look-up that was due at `time` after now.
fn next_after(resolver: &Resolver, time: Duration) -> Duration {
    let now = Instant::now();
    assert!(resolver.look_up_due(now + time).is_none(), "no look-up is due");
    settle(resolver);
    resolver.look_up_due(now).expect("it is planned").saturating_duration_since(now)
}

#[tokio::test]
async fn name_of_the_configuration_is_looked_up_without_a_client() {
    let (resolver, answer_next, asked) = following();
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    let idle = next_after(&resolver, Duration::ZERO);
    assert!((295..=376).contains(&idle.as_secs()), "{idle:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    // A client costs no look-up, and the next ones come before the answer is too old to be used at once.
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let now = Instant::now();
    let in_use = resolver.look_up_due(now).expect("it is planned").saturating_duration_since(now);
    assert!(in_use <= REFRESH_AFTER, "{in_use:?}");
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    let in_use = next_after(&resolver, in_use);
    assert!(in_use >= REFRESH_AFTER - Duration::from_secs(1) && in_use < FRESH_FOR, "{in_use:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn failed_refresh_keeps_the_answer_and_is_repeated_ever_later() {
    let (resolver, answer_next, _) = following();
    let (tell, told) = mpsc::channel();
    resolver.report_to(move |host| drop(tell.send(host.clone())));
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    let mut next = next_after(&resolver, Duration::ZERO);
    let pauses = [5, 10, 20, 40, 80, 160, 300, 300].map(|expected| {
        answer_next.send(refused()).expect("it listens");
        next = next_after(&resolver, next);
        (expected, next.as_secs())
    });
    let fits = |(expected, pause): &(u64, u64)| (expected - 1..=expected + expected / 4).contains(pause);
    assert!(pauses.iter().all(fits), "{pauses:?}");
    let host = told.try_iter().last().expect("it was told");
    assert_eq!(host.failed.expect("it failed").error, "no such name");
    assert_eq!((host.addresses.len(), host.answered.is_some()), (1, true));

    // No client waits for a name server that failed the last time, however old the answer is.
    let Cached::Addresses(addresses) = cached_after(&resolver, Duration::from_secs(3 * 60 * 60)) else {
        panic!("the answer is not used")
    };
    assert_eq!(*addresses, [FOUND.into()]);
    drop(answer_next);
    settle(&resolver);
}

#[tokio::test]
async fn answers_outlive_a_reload_and_end_with_the_name() {
    let (resolver, answer_next, asked) = following();
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    next_after(&resolver, Duration::ZERO);
    let (tell, told) = mpsc::channel();
    resolver.report_to(move |host| drop(tell.send((host.name.clone(), host.addresses.len()))));
    resolver.follow(["other.lan", "nas.lan"]);
    let both: Vec<(String, usize)> = told.try_iter().collect();
    assert_eq!(both, [("nas.lan".to_owned(), 1), ("other.lan".to_owned(), 0)]);
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    resolver.follow([]);
    assert!(resolver.names().is_empty() && resolver.state().names.is_empty());
    assert!(resolver.look_up_due(Instant::now() + GENEROUS * 100).is_none());
}

#[tokio::test]
async fn background_looks_up_until_it_is_dropped() {
    let (resolver, answer_next, asked) = following();
    let refreshing = tokio::spawn(resolver.clone().refresh());
    answer_next.send(Ok(vec![FOUND.into()])).expect("it listens");
    while resolver.names().iter().any(|host| host.answered.is_none()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    resolver.follow(["nas.lan", "other.lan"]);
    answer_next.send(refused()).expect("it listens");
    while resolver.names().iter().all(|host| host.failed.is_none()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    refreshing.abort();
}
