//! Threads that stay together for many short pieces of work.
//!
//! A pass over one token consists of some two hundred regions of a few microseconds. Handing each
//! to sleeping threads would take longer than the work, so the threads of the pool are lent to a
//! crew for a whole pass, and look for its next region without sleeping.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

/// Place of a next task that no region has.
const CLOSED: u64 = 0xffff_ffff;
/// Looks for work before the thread lets others run.
const LOOKS: usize = 4096;

/// What the threads share. Regions are counted, so that none is taken for another.
struct Crew {
    /// The region in the upper half; in the lower, the next of its tasks.
    ticket: AtomicU64,
    /// Tasks of the region.
    count: AtomicUsize,
    /// Tasks that are done.
    done: AtomicUsize,
    /// The region's work, and how it is called.
    work: AtomicPtr<()>,
    call: AtomicPtr<()>,
    is_over: AtomicBool,
}

thread_local! {
    /// The crew that this thread leads.
    static LED: Cell<*const Crew> = const { Cell::new(ptr::null()) };
}

/// Calls the work that `work` points to.
///
/// # Safety
/// It points to an `F` that lives.
unsafe fn call<F: Fn(usize) + Sync>(work: *const (), task: usize) {
    // SAFETY: the caller promises it.
    unsafe { (*work.cast::<F>())(task) }
}

/// A task under way: counted as done even where it panics, so that nobody waits for ever.
struct UnderWay<'a>(&'a Crew);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

impl Crew {
    /// Takes tasks of a region as long as there are any.
    fn take(&self, region: u64) {
        // Whoever sees what was written for a later region sees that this one is closed.
        let count = self.count.load(Ordering::Acquire) as u64;
        let (work, how) = (self.work.load(Ordering::Acquire), self.call.load(Ordering::Acquire));
        let mut seen = self.ticket.load(Ordering::Acquire);
        while seen >> 32 == region && seen & CLOSED < count {
            let next = self.ticket.compare_exchange_weak(
                seen,
                seen + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            let Err(now) = next else {
                let _under_way = UnderWay(self);
                // SAFETY: the region was still the one that was read above when its task was taken,
                // so count, work and call are its own; its leader waits until the task is done, and
                // keeps the work alive until then.
                unsafe {
                    let how: unsafe fn(*const (), usize) = std::mem::transmute(how);
                    how(work, (seen & CLOSED) as usize);
                }
                seen = self.ticket.load(Ordering::Acquire);
                continue;
            };
            seen = now;
        }
    }

    /// Takes part in all regions until the crew is over.
    fn help(&self) {
        let (mut last, mut looks) = (0, 0);
        while !self.is_over.load(Ordering::Acquire) {
            let region = self.ticket.load(Ordering::Acquire) >> 32;
            if region == last {
                wait(&mut looks);
                continue;
            }
            self.take(region);
            (last, looks) = (region, 0);
        }
    }

    /// Runs a region, and returns when all its tasks are done.
    fn run<F: Fn(usize) + Sync>(&self, count: usize, work: &F) {
        let region = (self.ticket.load(Ordering::Relaxed) >> 32) + 2;
        // Nobody takes a task of the last region from here on, nor one of this before it is whole.
        self.ticket.swap((region - 1) << 32 | CLOSED, Ordering::AcqRel);
        self.count.store(count, Ordering::Release);
        self.done.store(0, Ordering::Release);
        self.work.store(ptr::from_ref(work).cast_mut().cast(), Ordering::Release);
        let how: unsafe fn(*const (), usize) = call::<F>;
        self.call.store(how as *mut (), Ordering::Release);
        self.ticket.store(region << 32, Ordering::Release);
        self.take(region);
        let mut looks = 0;
        while self.done.load(Ordering::Acquire) < count {
            wait(&mut looks);
        }
    }
}

fn wait(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Does `work` with the threads of the pool at hand: [`each`] within it hands its tasks to them.
pub fn together<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let crew = Crew {
        ticket: AtomicU64::new(0),
        count: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        work: AtomicPtr::new(ptr::null_mut()),
        call: AtomicPtr::new(ptr::null_mut()),
        is_over: AtomicBool::new(false),
    };
    struct Lead<'a>(&'a Crew, *const Crew);
    impl Drop for Lead<'_> {
        fn drop(&mut self) {
            LED.set(self.1);
            self.0.is_over.store(true, Ordering::Release);
        }
    }
    rayon::scope(|scope| {
        for _ in 1..super::threads() {
            scope.spawn(|_| crew.help());
        }
        let _lead = Lead(&crew, LED.replace(&crew));
        work()
    })
}

/// Does `count` tasks, in any order: by the crew that this thread leads, or else by the pool.
pub fn each(count: usize, work: impl Fn(usize) + Sync) {
    let led = LED.get();
    if count < 2 {
        (0..count).for_each(work);
    } else if led.is_null() {
        (0..count).into_par_iter().for_each(&work);
    } else {
        // A region within a task of this one is done by the thread itself.
        let _alone = Alone(LED.replace(ptr::null()));
        // SAFETY: `together` takes the pointer back before the crew ends.
        unsafe { (*led).run(count, &work) };
    }
}

/// Does a task for each piece of `len` numbers, the last of which may be shorter: with its place
/// among the pieces, and the piece.
pub fn each_chunk(data: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    struct Start(*mut f32);
    // SAFETY: each task takes a piece of its own from the pointer.
    unsafe impl Sync for Start {}
    let (whole, start) = (data.len(), Start(data.as_mut_ptr()));
    let start = &start;
    each(whole.div_ceil(len.max(1)), |task| {
        let from = task * len;
        // SAFETY: the piece lies inside the data, which is borrowed meanwhile, and no other task
        // has a part of it.
        let piece =
            unsafe { std::slice::from_raw_parts_mut(start.0.add(from), len.min(whole - from)) };
        work(task, piece);
    });
}

/// Gives a thread its crew back.
struct Alone(*const Crew);

impl Drop for Alone {
    fn drop(&mut self) {
        LED.set(self.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_in_every_region() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let regions = pool.install(|| {
                together(|| {
                    let mut regions: Vec<Vec<usize>> = Vec::new();
                    for count in (0..400).map(|i| i * 7 % 23) {
                        let done: Vec<AtomicUsize> =
                            (0..count).map(|_| AtomicUsize::new(0)).collect();
                        each(count, |task| {
                            done[task].fetch_add(task + 1, Ordering::Relaxed);
                        });
                        regions.push(done.into_iter().map(AtomicUsize::into_inner).collect());
                    }
                    regions
                })
            });
            for (i, region) in regions.iter().enumerate() {
                let want: Vec<usize> = (1..=i * 7 % 23).collect();
                assert_eq!(*region, want);
            }
        }
    }

    #[test]
    fn regions_without_a_crew_and_within_tasks_are_done_too() {
        let sum = AtomicUsize::new(0);
        let add = |task: usize| {
            sum.fetch_add(task, Ordering::Relaxed);
        };
        each(10, add);
        together(|| each(3, |_| each(4, add)));
        assert_eq!(sum.into_inner(), 45 + 3 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let run = || together(|| each(64, |task| assert!(task != 63, "on purpose")));
        assert!(std::panic::catch_unwind(run).is_err());
        let sum = AtomicUsize::new(0);
        together(|| {
            each(3, |task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 3);
    }
}
