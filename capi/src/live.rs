//! Counts the objects that callers own, so that tests can prove that nothing leaks. Costs nothing without the feature.

#[cfg(feature = "live-objects")]
static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// A field of everything that is counted.
pub(crate) struct Live(());

impl Live {
    pub(crate) fn new() -> Self {
        #[cfg(feature = "live-objects")]
        COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Live(())
    }
}

#[cfg(feature = "live-objects")]
impl Drop for Live {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

/// How many handles exist: contexts, queues, clients, errors, values in undrained completions, and so on.
#[cfg(feature = "live-objects")]
#[unsafe(no_mangle)]
pub extern "C" fn fluvio_live_objects() -> usize {
    COUNT.load(std::sync::atomic::Ordering::SeqCst)
}
