use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

const FOUND: ([u8; 4], u16) = ([192, 0, 2, 7], 0);

const THREADS: usize = 16;

/// Long enough for any machine.
const GENEROUS: Duration = Duration::from_secs(30);

/// A resolver that answers what it is told to, one answer for each look-up, and how many it was asked for.
fn told() -> (Resolver, mpsc::Sender<io::Result<Vec<SocketAddr>>>, Arc<AtomicUsize>) {
    let (tell, answers) = mpsc::channel();
    let (answers, asked) = (Mutex::new(answers), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    let look_up = move |_: &str| {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = answers.lock().expect("a lock").recv();
        answer.unwrap_or_else(|_| Err(io::Error::other("the test is over")))
    };
    (Resolver::new(THREADS, look_up), tell, asked)
}

fn refused() -> io::Result<Vec<SocketAddr>> {
    Err(io::Error::other("no such name"))
}

/// What is known of the name so long after now, without waiting.
fn known_after(resolver: &Resolver, time: Duration) -> Known {
    resolver.known("nas.lan", Instant::now() + time)
}

/// Waits until no look-up of the name is under way.
fn settle(resolver: &Resolver) {
    let begun = Instant::now();
    while resolver.state().names.values().any(|entry| entry.flight.is_some()) {
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
async fn all_who_wait_for_a_name_share_one_look_up() {
    let (resolver, tell, asked) = told();
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolved(&resolver).await })
        })
        .collect();
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tell.send(Ok(vec![FOUND.into()])).expect("it listens");
    for one in waiting {
        assert_eq!(one.await.expect("a task"), Ok(vec![FOUND.into()]));
    }
    // What is known is used, and what is used is looked up again before it is too old.
    assert!(matches!(known_after(&resolver, Duration::from_secs(15)), Known::Addresses(_)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(matches!(known_after(&resolver, Duration::from_secs(25)), Known::Addresses(_)));
    tell.send(Ok(vec![FOUND.into()])).expect("it listens");
    settle(&resolver);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn mute_name_server_costs_the_dial_time_and_few_threads() {
    let (resolver, tell, _) = told();
    let soon = Instant::now() + Duration::from_millis(50);
    let unresolved = resolver.resolve("nas.lan", soon).await.expect_err("there is no answer");
    assert!(matches!(unresolved, Unresolved::NoAnswer), "{unresolved:?}");
    for name in 0..100 {
        for _ in 0..10 {
            let _ = resolver.known(&format!("host-{name}.lan"), Instant::now());
        }
    }
    let state = resolver.state();
    assert!(state.threads <= THREADS, "{}", state.threads);
    // Each name once, however many ask.
    assert!(state.queue.len() <= 101, "{}", state.queue.len());
    drop((state, tell));
    settle(&resolver);
}

#[tokio::test]
async fn last_good_answer_serves_while_the_name_server_is_mute_or_fails() {
    let (resolver, tell, asked) = told();
    tell.send(Ok(vec![FOUND.into()])).expect("it listens");
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));

    // Mute: the first to ask waits a moment for something newer.
    let hour = Duration::from_secs(60 * 60);
    let Known::Wait(_, Some((addresses, patience))) = known_after(&resolver, hour) else { panic!("nothing is known") };
    assert_eq!(*addresses, [FOUND.into()]);
    assert!(patience <= Instant::now() + hour + PATIENCE);
    tell.send(refused()).expect("it listens");
    settle(&resolver);
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // Failing: it is used at once, for a day.
    let at = |time| resolver.known("nas.lan", Instant::now() + time);
    assert!(matches!(at(Duration::ZERO), Known::Addresses(_)));
    let Known::Wait(_, usable) = at(STALE + hour) else { panic!("it is too old to be used") };
    assert!(usable.is_none());
    drop(tell);
    settle(&resolver);
}

#[tokio::test]
async fn failure_is_told_at_once_for_a_second_and_then_looked_at_again() {
    let (resolver, tell, asked) = told();
    tell.send(refused()).expect("it listens");
    assert_eq!(resolved(&resolver).await, Err("no such name".to_owned()));
    assert!(matches!(known_after(&resolver, Duration::from_millis(100)), Known::Failed(_)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(matches!(known_after(&resolver, Duration::from_secs(2)), Known::Wait(_, None)));
    tell.send(Ok(vec![FOUND.into(); 1000])).expect("it listens");
    settle(&resolver);
    // A name server that lies is believed so far.
    assert_eq!(resolved(&resolver).await.expect("it is there now").len(), ADDRESSES);
}

#[tokio::test]
async fn panic_in_a_look_up_is_a_failure_and_the_next_one_works() {
    let calls = AtomicUsize::new(0);
    let resolver = Resolver::new(THREADS, move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("a fault, on purpose"),
        _ => Ok(vec![FOUND.into()]),
    });
    assert!(resolved(&resolver).await.expect_err("it failed").contains("fault of the gate"));
    assert!(matches!(known_after(&resolver, Duration::from_secs(2)), Known::Wait(..)));
    settle(&resolver);
    assert_eq!(resolved(&resolver).await, Ok(vec![FOUND.into()]));
}

#[tokio::test]
async fn system_resolver_knows_the_hosts_file_and_says_no() {
    let resolver = Resolver::system(1);
    let found = resolver.resolve("localhost", Instant::now() + GENEROUS).await.expect("in every hosts file");
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 0), "{found:?}");
}
