//! The guarantees by name. All of them hold; only the tests' build can make a Causeway that breaks
//! one, to show that the checker of consistency would notice.

/// What the reads at some level rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// A captured position is what the session's next read must have reached.
    Captures,
    /// Where only its number was captured, a replica is asked whether it shows the transaction.
    Numbers,
    /// Where no position was captured, the primary is probed first.
    LostCaptures,
    /// A position behind a page's header counts as the page's boundary.
    PageBoundaries,
    /// Who leaves a replica asks first how far it had got.
    HandOff,
    /// Positions are compared on their own timeline only.
    Timelines,
    /// `max_staleness` bounds what `eventual` may see.
    Staleness,
    /// A token raises the floor of who presents it.
    Tokens,
    /// Sessions of one key share a floor.
    Keys,
}

/// Which guarantees hold: all, in any build but the tests'.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guarantees {
    #[cfg(feature = "mutations")]
    broken: Option<Guarantee>,
}

impl Guarantees {
    /// All but one.
    #[cfg(feature = "mutations")]
    pub fn without(broken: Guarantee) -> Guarantees {
        Guarantees {
            broken: Some(broken),
        }
    }

    #[cfg(feature = "mutations")]
    pub fn hold(self, guarantee: Guarantee) -> bool {
        self.broken != Some(guarantee)
    }

    /// Always.
    #[cfg(not(feature = "mutations"))]
    pub fn hold(self, _: Guarantee) -> bool {
        true
    }
}
