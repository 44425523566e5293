//! What is told of pages that have been written to, by `/proc/PID/pagemap` after `clear_refs`.
//!
//! Some is left open: an entry may tell of more than a write. So of each page it is said
//! whether it must be told of, and whether it may.

use super::*;

/// What has become of a page since it was last asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Written {
    /// It has been written to.
    must: bool,
    /// It may look like that.
    may: bool,
    /// It is part of a mapping some of which is new.
    renewed: bool,
    /// It has been for a moment, perhaps.
    was_renewed: bool,
}

impl Written {
    /// Of what has just been mapped.
    pub const NEW: Written = Written { must: false, may: false, renewed: true, was_renewed: false };

    pub fn is_written(&mut self) {
        (self.must, self.may) = (true, true);
    }

    /// It has no entry any more.
    pub fn is_gone(&mut self) {
        (self.must, self.may) = (false, false);
    }

    /// It has become part of a mapping that was split again.
    pub fn passes_through(&mut self) {
        self.was_renewed = true;
    }

    /// It may have none any more.
    pub fn may_be_gone(&mut self) {
        self.must = false;
    }

    /// It comes to another address, and certainly has an entry or may have one.
    pub fn moves(&mut self, has_entry: bool) {
        (self.must, self.may) = (self.must || has_entry, true);
    }

    /// Whether that is what the page's entry says, if it has one.
    pub fn agrees(&self, entry: Option<bool>) -> bool {
        let (at_least, at_most) = (self.must, self.may);
        self.renewed || (at_least..=at_most).contains(&(entry == Some(true)))
    }

    /// The page is a part of a large folio, of which all has been written to or nothing.
    pub fn is_of_a_large_folio(&mut self) {
        self.may = true;
    }
}

impl Page {
    /// Another one of the same mapping, which is not there yet.
    pub fn like(&self) -> Page {
        let mut written = self.written;
        written.is_gone();
        Page { private: None, lazy: false, written, ..*self }
    }
}

impl Space {
    /// No page has been written to.
    pub fn clear_written(&mut self) {
        for page in self.pages.values_mut() {
            page.written = Written { renewed: false, ..Written::NEW };
        }
    }

    /// An object has lost some of its pages, but private copies of them stay.
    pub fn punch_hole(&mut self, number: usize, hole: Range<usize>) {
        let gone =
            |page: &&mut Page| page.object.is_some_and(|(object, index)| object == number && hole.contains(&index));
        for page in self.pages.values_mut().filter(gone).filter(|page| page.private.is_none()) {
            page.written.is_gone();
        }
    }

    /// All of a mapping counts as new, or not. Says whether that is right: it is if some of it does.
    pub fn unite(&mut self, area: Range<usize>, new: bool) -> bool {
        let must = self.count_in(area.clone(), |page| page.written.renewed) != 0;
        let may = self.count_in(area.clone(), |page| page.written.was_renewed) != 0;
        for (_, page) in self.pages.range_mut(area) {
            (page.written.renewed, page.written.was_renewed) = (new, false);
        }
        new == must || new && may
    }
}
