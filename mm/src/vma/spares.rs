//! Objects drawn before an operation starts, so that its commit cannot fail.

use core::ops::Add;

use super::Vma;
use crate::addr::PageRange;
use crate::errno::OutOfMemory;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::rmap::{AnonVma, Avc};
use crate::slab::{Ref, Reserve};

/// How many objects an operation draws, at most.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Needs {
    pub(super) vmas: usize,
    pub(super) avcs: usize,
    pub(super) anon_vmas: usize,
}

impl Needs {
    /// Nothing.
    pub(crate) const NONE: Needs = Needs { vmas: 0, avcs: 0, anon_vmas: 0 };

    /// For a new VMA, whether it merges or not, in which pages of
    /// `copied_from` are to be put, if of any.
    pub(crate) fn map(copied_from: Option<Ref<Vma>>) -> Needs {
        Needs { vmas: 1, avcs: copied_from.map_or(0, |from| from.chain_len()), anon_vmas: 0 }
    }

    /// For splitting `vma` in two.
    pub(crate) fn split(vma: Ref<Vma>) -> Needs {
        Needs { vmas: 1, avcs: vma.chain_len(), anon_vmas: 0 }
    }

    /// For taking `range`, which has a part of `vma`, out of it: nothing unless
    /// something stays on both sides.
    #[inline]
    pub(crate) fn hole(vma: Ref<Vma>, range: PageRange) -> Needs {
        if vma.start() < range.start() && range.end() < vma.end() { Needs::split(vma) } else { Needs::NONE }
    }

    /// For splitting off what `vma` has before `range` and after it.
    pub(crate) fn cuts(vma: Ref<Vma>, range: PageRange) -> Needs {
        let cut = |cut: bool| if cut { Needs::split(vma) } else { Needs::NONE };
        cut(vma.start() < range.start()) + cut(range.end() < vma.end())
    }

    /// For a new VMA with the pages in `range` of `vma`, whether it merges or
    /// not, and then taking the range out of the VMA that it is in.
    ///
    /// If that has become one with the new VMA, which is then not drawn, the
    /// range may be a hole in it, and it chained to one anon_vma as a neighbour was.
    pub(crate) fn moved(vma: Ref<Vma>, range: PageRange) -> Needs {
        let new = Needs::map(Some(vma));
        Needs { avcs: new.avcs.max(1), ..new } + Needs::hole(vma, range)
    }

    /// For an anon_vma of its own for a VMA that has none.
    pub(crate) const CHAIN: Needs = Needs { vmas: 0, avcs: 1, anon_vmas: 1 };

    /// For the child's copy of `vma` at a fork.
    pub(crate) fn fork(vma: Ref<Vma>) -> Needs {
        match vma.anon_vma() {
            Some(_) => Needs { vmas: 1, avcs: vma.chain_len() + 1, anon_vmas: 1 },
            None => Needs { vmas: 1, avcs: 0, anon_vmas: 0 },
        }
    }

    /// How many more VMAs there may be afterwards than before.
    pub(crate) fn vmas(&self) -> usize {
        self.vmas
    }
}

impl Add for Needs {
    type Output = Needs;

    #[inline]
    fn add(self, other: Needs) -> Needs {
        Needs {
            vmas: self.vmas + other.vmas,
            avcs: self.avcs + other.avcs,
            anon_vmas: self.anon_vmas + other.anon_vmas,
        }
    }
}

/// The objects themselves. What is not used goes back when it is dropped.
pub(crate) struct Spares<'m> {
    vmas: Reserve<'m, Vma>,
    avcs: Reserve<'m, Avc>,
    anon_vmas: Reserve<'m, AnonVma>,
}

impl<'m> Spares<'m> {
    /// Draws what is needed.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], and then nothing has been drawn.
    #[cfg_attr(test, track_caller)]
    #[inline(always)]
    pub(crate) fn reserve<P: Platform>(memory: &'m Memory<P>, needs: Needs) -> Result<Spares<'m>, OutOfMemory> {
        let arenas = &memory.arenas;
        let mut spares =
            Spares { vmas: arenas.vmas.reserve(), avcs: arenas.avcs.reserve(), anon_vmas: arenas.anon_vmas.reserve() };
        // Many operations need nothing: this much is done in place.
        if needs != Needs::NONE {
            spares.draw(memory, needs)?;
        }
        Ok(spares)
    }

    #[cfg_attr(test, track_caller)]
    fn draw<P: Platform>(&mut self, memory: &Memory<P>, needs: Needs) -> Result<(), OutOfMemory> {
        self.vmas.draw(memory, needs.vmas)?;
        self.avcs.draw(memory, needs.avcs)?;
        self.anon_vmas.draw(memory, needs.anon_vmas)
    }

    /// Takes a VMA, in an undefined state.
    pub(super) fn vma(&mut self) -> Ref<Vma> {
        self.vmas.take().unwrap_or_else(|| exhausted("VMAs"))
    }

    /// Takes a chain link, in an undefined state; for `rmap` alone.
    pub(crate) fn avc(&mut self) -> Ref<Avc> {
        self.avcs.take().unwrap_or_else(|| exhausted("chain links"))
    }

    /// Takes an anon_vma, in an undefined state; for `rmap` alone.
    pub(crate) fn anon_vma(&mut self) -> Ref<AnonVma> {
        self.anon_vmas.take().unwrap_or_else(|| exhausted("anon_vmas"))
    }
}

/// Reached only when the [`Needs`] of an operation were computed wrongly, for
/// which no input, no order of events and no lack of memory is a reason.
#[cold]
fn exhausted(what: &str) -> ! {
    panic!("an operation drew more {what} than it had said it needs")
}
