//! The search: breadth first for the shortest trace, depth first for what is too large to keep.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::mutant;

use super::Bounds;
use super::actions::{self, Action};
use super::seen::{Met, Print, Seen};
use super::world::{World, Wrong};

/// How a search went.
pub struct Found {
    pub states: u64,
    pub transitions: u64,
    /// The longest way that was gone; breadth first the greatest distance of a state.
    pub depth: usize,
    pub seconds: f64,
    /// Whether there was nothing left to look at.
    pub complete: bool,
    pub wrong: Option<(Wrong, Vec<Action>)>,
}

/// The way to a state, backwards.
struct Step {
    action: Action,
    before: Way,
}

type Way = Option<Arc<Step>>;

struct Waiting {
    world: World,
    print: Print,
    way: Way,
    depth: usize,
}

struct Search<'b> {
    bounds: &'b Bounds,
    seen: Seen,
    /// What is found first must have the shortest trace: a state is passed over only for one that is as near.
    finds_shortest: bool,
    transitions: AtomicU64,
    depth: AtomicUsize,
    stop: AtomicBool,
    full: AtomicBool,
    wrong: Mutex<Option<(Wrong, Vec<Action>)>>,
}

/// Breadth first, on one thread: what is found first has the shortest trace.
pub fn breadth_first(bounds: &Bounds, states_max: usize) -> Found {
    let begin = Instant::now();
    let search = Search::new(bounds, states_max, true);
    let mut level = vec![search.root()];
    while !level.is_empty() && !search.stop.load(Ordering::Relaxed) {
        let mut next = Vec::new();
        for waiting in level {
            search.expand(waiting, &mut next);
            if search.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        level = next;
    }
    search.found(begin)
}

/// Depth first, on so many threads: what waits is a few thousand states, however many there are.
pub fn depth_first(bounds: &Bounds, states_max: usize, threads: usize) -> Found {
    let begin = Instant::now();
    let search = Search::new(bounds, states_max, false);
    let shared = Mutex::new(vec![search.root()]);
    let (idle, mutants) = (AtomicUsize::new(0), mutant::inherit());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                mutants.take_over();
                search.work(&shared, &idle, threads);
            });
        }
    });
    search.found(begin)
}

impl<'b> Search<'b> {
    fn new(bounds: &'b Bounds, states_max: usize, finds_shortest: bool) -> Search<'b> {
        Search {
            bounds,
            seen: Seen::new(states_max),
            finds_shortest,
            transitions: AtomicU64::new(0),
            depth: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            full: AtomicBool::new(false),
            wrong: Mutex::new(None),
        }
    }

    fn root(&self) -> Waiting {
        let world = actions::beginning(self.bounds);
        let print = world.print();
        self.seen.insert(&print, 0);
        Waiting { world, print, way: None, depth: 0 }
    }

    /// All that follows from a state, as far as it is new and nothing covers it.
    fn expand(&self, waiting: Waiting, next: &mut Vec<Waiting>) {
        let Waiting { world, print, way, depth } = waiting;
        if self.seen.is_covered(&print, depth, self.finds_shortest) {
            return;
        }
        self.depth.fetch_max(depth, Ordering::Relaxed);
        let mut count = 0;
        for action in actions::possible(&world, self.bounds) {
            let taken = catch_unwind(AssertUnwindSafe(|| actions::take(&world, &action, self.bounds)));
            let taken = taken.unwrap_or_else(|panic| Err(Wrong::Panic(words(&*panic))));
            match taken {
                Ok(None) => continue,
                Err(wrong) => return self.report(wrong, Some(Arc::new(Step { action, before: way }))),
                Ok(Some(world)) => {
                    count += 1;
                    let (print, depth) = (world.print(), depth + 1);
                    match self.seen.insert(&print, depth) {
                        Met::Covered => {}
                        Met::New => {
                            let way = Some(Arc::new(Step { action, before: way.clone() }));
                            next.push(Waiting { world, print, way, depth });
                        }
                        Met::Full => {
                            self.full.store(true, Ordering::Relaxed);
                            self.stop.store(true, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            }
        }
        self.transitions.fetch_add(count, Ordering::Relaxed);
    }

    fn work(&self, shared: &Mutex<Vec<Waiting>>, idle: &AtomicUsize, threads: usize) {
        let mut own: Vec<Waiting> = Vec::new();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Some(waiting) = own.pop() {
                self.expand(waiting, &mut own);
                if idle.load(Ordering::Relaxed) > 0 && own.len() > 1 {
                    // The oldest have most behind them.
                    let half = own.len() / 2;
                    shared.lock().expect("nobody panics with it").extend(own.drain(..half));
                }
                continue;
            }
            let given = {
                let mut shared = shared.lock().expect("nobody panics with it");
                let some = shared.len().div_ceil(2);
                let from = shared.len() - some;
                shared.split_off(from)
            };
            if !given.is_empty() {
                own = given;
                continue;
            }
            idle.fetch_add(1, Ordering::SeqCst);
            loop {
                if !shared.lock().expect("nobody panics with it").is_empty() {
                    idle.fetch_sub(1, Ordering::SeqCst);
                    break;
                }
                if idle.load(Ordering::SeqCst) == threads || self.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::yield_now();
            }
        }
    }

    fn report(&self, wrong: Wrong, way: Way) {
        let mut actions = Vec::new();
        let mut at = &way;
        while let Some(step) = at {
            actions.push(step.action.clone());
            at = &step.before;
        }
        actions.reverse();
        self.wrong.lock().expect("nobody panics with it").get_or_insert((wrong, actions));
        self.stop.store(true, Ordering::Relaxed);
    }

    fn found(self, begin: Instant) -> Found {
        let wrong = self.wrong.into_inner().expect("nobody panics with it");
        Found {
            states: self.seen.count(),
            transitions: self.transitions.into_inner(),
            depth: self.depth.into_inner(),
            seconds: begin.elapsed().as_secs_f64(),
            complete: wrong.is_none() && !self.full.into_inner(),
            wrong,
        }
    }
}

/// A chain of a hundred thousand steps is not dropped by recursion.
impl Drop for Step {
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(step) = next {
            next = Arc::into_inner(step).and_then(|mut step| step.before.take());
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}

/// The trace, with what the nodes hold in the end.
pub fn tell(bounds: &Bounds, wrong: &Wrong, trace: &[Action]) -> String {
    let mut world = actions::beginning(bounds);
    let mut text = String::new();
    for (number, action) in (1..).zip(trace) {
        text += &format!("{number:3}. {action}\n");
        let taken = catch_unwind(AssertUnwindSafe(|| actions::take(&world, action, bounds)));
        if let Ok(Ok(Some(next))) = taken {
            world = next;
        }
    }
    format!("{text}{}{wrong}", world.describe())
}
