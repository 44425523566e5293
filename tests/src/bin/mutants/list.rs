//! The mutations.

/// One way to break the sources.
pub struct Mutation {
    /// What is wrong afterwards.
    pub what: &'static str,
    /// The file, from the root of the sources.
    pub file: &'static str,
    /// A text that occurs there once,
    pub find: &'static str,
    /// and what is put in its place.
    pub replace: &'static str,
    /// The scenario of the model checker that finds it; otherwise unit tests do.
    pub scenario: Option<&'static str>,
}

const fn mutation(what: &'static str, file: &'static str, find: &'static str, replace: &'static str) -> Mutation {
    Mutation { what, file, find, replace, scenario: None }
}

/// One that lets two threads get into each other's way.
const fn race(
    scenario: &'static str,
    what: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutation {
    Mutation { what, file, find, replace, scenario: Some(scenario) }
}

/// Those for the unit tests, by what they break.
pub const MUTATIONS: &[Mutation] = &[
    // ---- reclaim and swap ----
    mutation(
        "reclaim: pages are stored that TLBs still know",
        "mm/src/reclaim/withdraw.rs",
        "core.tables.flush_stale(self.mem, self.reason);",
        "let _ = core;",
    ),
    mutation(
        "munmap: what reclaim has not flushed yet is left to it",
        "mm/src/paging/gather.rs",
        "self.tables.flush_stale(self.mem, self.reason);",
        "",
    ),
    mutation(
        "mremap: what reclaim has not flushed yet is left to it",
        "mm/src/paging/moves.rs",
        "self.flush_stale(mem, Event::FlushMove);",
        "",
    ),
    mutation(
        "reclaim: a page goes that the kernel has a reference to",
        "mm/src/reclaim/evict.rs",
        " || record.refcount() != mapped + 1 + u32::from(cached != 0)",
        "",
    ),
    mutation(
        "reclaim: locked pages go too",
        "mm/src/reclaim/evict.rs",
        "if usage.locked || usage.accessed",
        "if usage.accessed",
    ),
    mutation(
        "swap: a page that others have in swap as well may be written to",
        "mm/src/space/swap.rs",
        "let alone = unmapped && self.mem.swap().uses(slot) == 1;",
        "let alone = unmapped;",
    ),
    mutation(
        "swap: a page that comes back for several belongs to the first",
        "mm/src/space/swap.rs",
        "let anon_vma = if alone { own } else { own.map(AnonVma::root) };",
        "let anon_vma = own;",
    ),
    mutation(
        "fork: entries that name a swap slot are not counted",
        "mm/src/space/fork.rs",
        "        mem.swap().get(number);\n        return entry;\n",
        "        return entry;\n",
    ),
    mutation(
        "MADV_FREE: no TLB flush, so a write may go unnoticed",
        "mm/src/space/pageout.rs",
        "                        gather.changed(addr);\n",
        "",
    ),
    mutation(
        "a write to another address space does not keep what MADV_FREE was told of",
        "mm/src/space/populate.rs",
        "entry.with(EntryFlags::DIRTY | EntryFlags::ACCESSED)",
        "entry",
    ),
    // ---- migration ----
    mutation(
        "migration: a page goes that the kernel has a reference to",
        "mm/src/migrate/mod.rs",
        "|| old.refcount() != 1 {",
        "|| false {",
    ),
    mutation(
        "migration: what may be dropped may be no more",
        "mm/src/migrate/mod.rs",
        "        new.set_lazy_free(old.is_lazy_free());\n",
        "",
    ),
    mutation(
        "fork: migration entries are not counted",
        "mm/src/space/fork.rs",
        "        frames.get(pfn).inc_migrating();\n",
        "        let _ = (frames, pfn);\n",
    ),
    mutation(
        "fork: migration entries stay writable",
        "mm/src/space/fork.rs",
        "let read_only = entry.without(EntryFlags::WRITE);",
        "let read_only = entry;",
    ),
    mutation(
        "mprotect: pages that are being moved stay accessible",
        "mm/src/space/mprotect.rs",
        "    if old.migrating().is_some() {",
        "    if false && old.migrating().is_some() {",
    ),
    mutation(
        "relocation: pages that are being moved are forgotten",
        "mm/src/paging/entry.rs",
        "self.settled().is_counted().then(",
        "self.is_counted().then(",
    ),
    // ---- flushes that are left out ----
    mutation(
        "munmap: no TLB flush before frames are released",
        "mm/src/paging/gather.rs",
        "self.tables.flush(self.mem, self.start, self.end, self.reason);",
        "",
    ),
    mutation(
        "mprotect: no TLB flush where access is taken away",
        "mm/src/space/mprotect.rs",
        "            if stale {",
        "            if false && stale {",
    ),
    mutation(
        "mprotect: no TLB flush where writing is taken away",
        "mm/src/space/mprotect.rs",
        "(old.is_writable() && !new.contains(EntryFlags::WRITE))",
        "false",
    ),
    mutation(
        "mprotect: a TLB flush where nothing is taken away",
        "mm/src/space/mprotect.rs",
        "            if stale {",
        "            if stale || true {",
    ),
    mutation(
        "fork: no TLB flush of pages that are write-protected",
        "mm/src/space/fork.rs",
        "if shared.protected {",
        "if false && shared.protected {",
    ),
    mutation(
        "copy on write: no TLB flush of the page that is replaced",
        "mm/src/space/fault.rs",
        "        gather.changed(page);\n",
        "",
    ),
    mutation(
        "move: no TLB flush of moved PTEs",
        "mm/src/paging/moves.rs",
        "if Entry(all).is_present() {",
        "if false {",
    ),
    mutation("move: no TLB flush of moved tables", "mm/src/paging/moves.rs", "if moved {", "if false && moved {"),
    mutation(
        "flush: the last page of the range is left out",
        "mm/src/paging/mod.rs",
        "self.next_flush(start, end, full)",
        "self.next_flush(start, end - PAGE_SIZE, full)",
    ),
    // ---- faults without the mmap lock ----
    mutation(
        "VMA lock: the writer does not wait for faults",
        "mm/src/sync/vma_lock.rs",
        "        if self.has_readers() {",
        "        if false {",
    ),
    mutation(
        "VMA lock: not released at the end of the section",
        "mm/src/vma/index.rs",
        "self.section.store(tree.next_section(), Ordering::Release);",
        "",
    ),
    mutation("look-up: a detached VMA is taken for one", "mm/src/vma/index.rs", "vma.is_attached() && ", ""),
    mutation(
        "look-up: another address space's VMA is taken for one",
        "mm/src/vma/index.rs",
        "vma.space() == space && ",
        "",
    ),
    mutation("look-up: a VMA that has moved is taken for one", "mm/src/vma/index.rs", " && vma.contains(addr)", ""),
    mutation(
        "a new VMA is not locked while it is made",
        "mm/src/vma/area.rs",
        "        self.lock.write_unshared(section);\n",
        "",
    ),
    mutation(
        "munmap: pages are taken out under faults",
        "mm/src/space/munmap.rs",
        "            vmas.lock_vma(vma);\n",
        "",
    ),
    mutation(
        "fork: pages are copied under faults",
        "mm/src/space/fork.rs",
        "                    parent.vmas.lock_vma(vma);\n",
        "",
    ),
    mutation(
        "mremap: pages are moved under faults",
        "mm/src/space/mremap/moving.rs",
        "        state.vmas.lock_vma(vma);\n        self.core.tables.split_ends(self.mem, mv.source);",
        "        self.core.tables.split_ends(self.mem, mv.source);",
    ),
    mutation(
        "huge: a move leaves the spare table behind",
        "mm/src/paging/moves.rs",
        "                    from.move_spare(mem, &to);\n",
        "",
    ),
    mutation(
        "huge: a VMA ends inside a huge page",
        "mm/src/space/mod.rs",
        "        self.core.tables.split_ends(self.mem, range);\n        let plan",
        "        let plan",
    ),
    mutation(
        "huge: munmap of a part takes all of it",
        "mm/src/space/zap.rs",
        "        self.core.tables.split_ends(self.mem, range);\n",
        "",
    ),
    mutation(
        "huge: pages are collapsed while TLBs have them",
        "mm/src/paging/huge.rs",
        "        self.flush(mem, addr, addr + PMD_SIZE, Event::FlushCollapse);\n",
        "",
    ),
    mutation(
        "huge: pages are collapsed while the kernel writes to them",
        "mm/src/space/huge.rs",
        "let is_used = record.mapcount() == 1 && record.refcount() != own;",
        "let is_used = false && own != 0;",
    ),
    mutation(
        "huge: a write to a shared page makes all of it writable",
        "mm/src/space/fault.rs",
        "    entry.pfns().all(|pfn| is_page_exclusive(frames, pfn))",
        "    entry.pfns().any(|pfn| is_page_exclusive(frames, pfn))",
    ),
    mutation(
        "huge: reclaim asks each part anew",
        "mm/src/reclaim/evict.rs",
        "                if entry.is_huge() && entry.pfn() != pfn {",
        "                if false {",
    ),
    mutation(
        "mprotect: flags change under faults",
        "mm/src/vma/tree.rs",
        "        self.lock_vma(vma);\n        vma.store_flags",
        "        vma.store_flags",
    ),
    mutation(
        "fault: the first anon_vma is given without the mmap lock",
        "mm/src/space/fault.rs",
        "        && vma.anon_vma().is_none()\n",
        "        && false\n",
    ),
    // ---- what stays in a TLB ----
    mutation(
        "PCID: flushes are not counted while no CPU is active",
        "mm/src/paging/pcid.rs",
        "fetch_add(1, Ordering::SeqCst) + 1",
        "fetch_add(u64::from(!self.active().is_empty()), Ordering::SeqCst) + 1",
    ),
    mutation(
        "PCID: a load keeps what has missed a flush",
        "mm/src/paging/pcid.rs",
        "had == (context, generation)",
        "had.0 == context",
    ),
    mutation(
        "PCID: a load keeps what is another address space's",
        "mm/src/paging/pcid.rs",
        "had == (context, generation)",
        "had.1 == generation",
    ),
    mutation(
        "PCID: a flush is executed whatever is loaded",
        "mm/src/paging/pcid.rs",
        "if slot.context.load(Ordering::Relaxed) != flush.context {",
        "if false {",
    ),
    mutation(
        "PCID: a flush does not make up for those it overtakes",
        "mm/src/paging/pcid.rs",
        "if flush.full || flush.generation != done + 1",
        "if flush.full",
    ),
    mutation(
        "PCID: who has left still counts as loaded",
        "mm/src/paging/pcid.rs",
        "        tlb.unload(self.context.load(Ordering::Relaxed));\n",
        "",
    ),
    // ---- locks ----
    mutation(
        "locks: two page tables in descending order",
        "mm/src/paging/table.rs",
        "if self.addr <= other.addr { (self, other)",
        "if self.addr >= other.addr { (self, other)",
    ),
    mutation(
        "locks: a VMA's prepare lock under the lock of its root",
        "mm/src/rmap/chain.rs",
        "            let lock = root.lock();\n            vma.set_chain(None);",
        "            drop(once);\n            let lock = root.lock();\n            let _once = vma.prepare_lock();\n            vma.set_chain(None);",
    ),
    // ---- page offsets ----
    mutation(
        "page offset: the upper part of a split is off by one",
        "mm/src/vma/modify.rs",
        "create(self, memory, spares, rest, vma.index_of(addr),",
        "create(self, memory, spares, rest, vma.index_of(addr) + 1,",
    ),
    mutation(
        "page offset: written memory follows its address when it moves",
        "mm/src/space/mremap/moving.rs",
        "let unfaulted = vma.anon_vma().is_none() && attributes.object.is_none();",
        "let unfaulted = attributes.object.is_none();",
    ),
    mutation(
        "page offset: the frame's index is not set",
        "mm/src/space/fault.rs",
        "        record.set_index(vma.index_of(page));\n",
        "",
    ),
    mutation(
        "merging: neighbours need not continue each other's page offset",
        "mm/src/vma/merge.rs",
        "&& self.pgoff.wrapping_add(self.range.pages()) == next.pgoff()",
        "",
    ),
    // ---- rollback and prepare ----
    mutation(
        "rollback: a move that fails keeps its new tables",
        "mm/src/paging/moves.rs",
        "            self.move_abort(mem, mv);\n",
        "",
    ),
    mutation(
        "rollback: a charge that is not kept is not given back",
        "mm/src/space/account.rs",
        "        self.mem.uncharge_commit(self.pages);\n",
        "",
    ),
    mutation(
        "rollback: the link for a first anon_vma is lost when there is no anon_vma",
        "mm/src/rmap/chain.rs",
        "                arenas.avcs.free(avc);\n                return Err(error);",
        "                return Err(error);",
    ),
    mutation(
        "prepare: a move unmaps its target before it has its tables",
        "mm/src/space/mremap/moving.rs",
        "            let mut spares = Spares::reserve(self.mem, room + own + chain)?;\n            self.core.tables.move_prepare(self.mem, &tables)?;\n            charge.keep();\n            if target.pages != 0 {\n                self.unmap_commit(state, mv.target, Tables::Keep, &mut spares);\n            }",
        "            let mut spares = Spares::reserve(self.mem, room + own + chain)?;\n            if target.pages != 0 {\n                self.unmap_commit(state, mv.target, Tables::Keep, &mut spares);\n            }\n            self.core.tables.move_prepare(self.mem, &tables)?;\n            charge.keep();",
    ),
    mutation(
        "prepare: a split reserves no chain links",
        "mm/src/vma/spares.rs",
        "Needs { vmas: 1, avcs: vma.chain_len(), anon_vmas: 0 }",
        "Needs { vmas: 1, avcs: 0, anon_vmas: 0 }",
    ),
    // ---- page tables ----
    mutation(
        "tables: a whole table moves though its span reaches beyond the room below",
        "mm/src/paging/moves.rs",
        "self.old_room.0 <= first && next",
        "next",
    ),
    mutation(
        "tables: one is freed though a mapping above still needs it",
        "mm/src/paging/free.rs",
        "let inside = bounds.floor <= first && next <= bounds.ceiling;",
        "let inside = bounds.floor <= first;",
    ),
    mutation(
        "tables: those of the tail of a shrinking move stay",
        "mm/src/space/mremap/moving.rs",
        "        if let Some(tail) = mv.tail {\n            self.free_kept_tables(state, tail);\n        }\n",
        "",
    ),
    mutation(
        "tables: PUD entries are exchanged with tables left behind",
        "mm/src/paging/moves.rs",
        "        if level < Level::Pud {\n            return true;\n        }",
        "        if level <= Level::Pud {\n            return true;\n        }",
    ),
    // ---- copy on write ----
    mutation(
        "copy on write: a page with two mappings is taken for exclusive",
        "mm/src/space/fault.rs",
        "record.mapcount() == 1 && record.refcount() == 1",
        "record.refcount() <= 2",
    ),
    mutation(
        "fork: the child may write to what it shares",
        "mm/src/space/fork.rs",
        "copy.set(entry.without(EntryFlags::WRITE | EntryFlags::ACCESSED));",
        "copy.set(entry.without(EntryFlags::ACCESSED).with(EntryFlags::WRITE));",
    ),
    mutation(
        "fork: a shared frame gets no reference",
        "mm/src/space/fork.rs",
        "            let record = frames.get(entry.pfn());\n            record.get();\n",
        "            let record = frames.get(entry.pfn());\n",
    ),
    // ---- merging and reverse mapping ----
    mutation(
        "merging: a forked child's memory takes in fresh memory",
        "mm/src/vma/merge.rs",
        "(Some(_), None) => vma.has_short_chain(),",
        "(Some(_), None) => true,",
    ),
    mutation(
        "merging: two anon_vmas become one",
        "mm/src/vma/merge.rs",
        "(Some(one), Some(two)) => one == two,",
        "(Some(_), Some(_)) => true,",
    ),
    mutation(
        "merging: DONTUNMAP merges with its own source",
        "mm/src/vma/map.rs",
        "MergeWith::NotSource => self.copied_from != Some(vma),",
        "MergeWith::NotSource => true,",
    ),
    mutation(
        "reverse mapping: what shrinks keeps its place in the interval tree",
        "mm/src/rmap/interval.rs",
        "        avc.last.store(vma.pgoff() + (vma.pages() - 1), Ordering::Relaxed);\n        anon_vma.tree.refresh(avc);",
        "",
    ),
    // ---- relocation ----
    mutation(
        "relocation: pages keep their indices",
        "mm/src/space/mremap/relocate.rs",
        "    frame.set_index(index);\n",
        "",
    ),
    mutation(
        "relocation: pages keep their anon_vma",
        "mm/src/space/mremap/relocate.rs",
        "    frame.set_mapping(mapping);\n",
        "            let _ = mapping;\n",
    ),
    mutation(
        "relocation: what was forked is taken for its own",
        "mm/src/space/mremap/relocate.rs",
        "if rmap::is_forked(&vma) {",
        "if false {",
    ),
    mutation(
        "relocation: a page that is mapped elsewhere is moved along",
        "mm/src/space/mremap/relocate.rs",
        ".mapcount() > 1",
        ".mapcount() == 0",
    ),
    mutation(
        "relocation: the strict flag falls back",
        "mm/src/space/mremap/relocate.rs",
        "        if remap.must_relocate() {",
        "        if false {",
    ),
    mutation(
        "relocation: the first of several mappings moves before the next is looked at",
        "mm/src/space/mremap/mod.rs",
        "if self.refuses_relocation(vma, source, &piece) {",
        "if false {",
    ),
    mutation(
        "relocation: it takes the anon_vma of what it leaves",
        "mm/src/rmap/chain.rs",
        "*vma != from || !source.contains(at)",
        "true || *vma != from || !source.contains(at)",
    ),
    mutation(
        "relocation: what has moved is not merged",
        "mm/src/space/mremap/moving.rs",
        "            state.vmas.plan_merge(mapped, source).commit(&mut state.vmas, self.mem, spares);\n",
        "            let _ = (mapped, source);\n",
    ),
    mutation(
        "relocation: what has moved is merged with what it leaves",
        "mm/src/space/mremap/moving.rs",
        "            state.vmas.plan_merge(mapped, source)",
        "            state.vmas.plan_merge(mapped, source.filter(|_| false))",
    ),
    mutation(
        "relocation: no anon_vma is reserved",
        "mm/src/space/mremap/moving.rs",
        "if relocate { Needs::CHAIN }",
        "if false { Needs::CHAIN }",
    ),
    // ---- room ----
    mutation(
        "gaps: the largest gap of a subtree is not kept up to date",
        "mm/src/vma/tree.rs",
        "            vma.gap.store(gap, Ordering::Relaxed);\n            self.tree.refresh(vma);",
        "            vma.gap.store(gap, Ordering::Relaxed);",
    ),
    mutation(
        "gaps: a gap that is exactly large enough is refused",
        "mm/src/vma/gap.rs",
        "        let addr = end - self.len;",
        "        if end - start == needed {\n            return None;\n        }\n        let addr = end - self.len;",
    ),
    // ---- books ----
    mutation(
        "books: what moves stays charged twice",
        "mm/src/space/mremap/moving.rs",
        "                self.mem.recharge_commit(mv.source.pages());",
        "                self.mem.recharge_commit(2 * mv.source.pages());",
    ),
    mutation(
        "books: DONTUNMAP leaves the source counted as locked",
        "mm/src/space/mremap/moving.rs",
        "            state.totals.unlock(old, source.pages());\n",
        "",
    ),
    mutation(
        "limits: one mapping too many",
        "mm/src/space/munmap.rs",
        "state.vmas.len() >= self.mem.sysctl().max_map_count()",
        "state.vmas.len() > self.mem.sysctl().max_map_count()",
    ),
];

/// Those for the model checker, by the scenario that finds them.
pub const RACES: &[Mutation] = &[
    race(
        "faults::two_faults_on_one_page",
        "race: an entry is not looked at again under its lock",
        "mm/src/space/fault.rs",
        "            Ok(slot) if slot.get().is_empty() => slot,\n            other => {\n                self.disown(frame);",
        "            Ok(slot) => slot,\n            other => {\n                self.disown(frame);",
    ),
    race(
        "faults::fault_and_mprotect",
        "race: mprotect leaves TLBs as they are",
        "mm/src/space/mprotect.rs",
        "            if stale {",
        "            if false && stale {",
    ),
    race(
        "moves::fault_and_move_of_an_entry_cve_2018_18281",
        "race: moved entries stay in TLBs",
        "mm/src/paging/moves.rs",
        "if Entry(all).is_present() {",
        "if false {",
    ),
    race(
        "moves::move_and_move",
        "race: mremap lets go of the lock between its checks and the move",
        "mm/src/space/mremap/mod.rs",
        "        self.check_vma(&state, remap, vma)?;\n        if remap.names_new_addr() {",
        "        self.check_vma(&state, remap, vma)?;\n        drop(state);\n        state = self.mmap.write();\n        if remap.names_new_addr() {",
    ),
    race(
        "reuse::fork_and_write_fault",
        "race: fork leaves its parent's TLBs as they are",
        "mm/src/space/fork.rs",
        "if shared.protected {",
        "if false && shared.protected {",
    ),
    race(
        "reuse::table_freed_and_walk",
        "race: tables are freed before TLBs have forgotten them",
        "mm/src/paging/gather.rs",
        "        let pfn = page.into_raw();\n        self.mem.frame(pfn).set_index(self.dead_tables.0);",
        "        if true {\n            return self.mem.free(page);\n        }\n        let pfn = page.into_raw();\n        self.mem.frame(pfn).set_index(self.dead_tables.0);",
    ),
    race(
        "reuse::shootdown_and_switch",
        "race: a CPU reads the generation before it is among the active ones",
        "mm/src/paging/pcid.rs",
        "        self.activate(cpu);\n        point();\n        // Not before: a flush that does not see the CPU is seen here.\n        let generation = self.generation.load(Ordering::SeqCst);\n",
        "        let generation = self.generation.load(Ordering::SeqCst);\n        self.activate(cpu);\n",
    ),
    race(
        "reuse::frame_freed_and_stale_translation",
        "race: frames are put before TLBs have forgotten them",
        "mm/src/paging/gather.rs",
        "        self.tables.flush(self.mem, self.start, self.end, self.reason);\n        self.start = usize::MAX;",
        "        let (start, end) = (self.start, self.end);\n        let frames = self.count;\n        // SAFETY: as below.\n        self.mem.put_all(unsafe { core::slice::from_raw_parts(self.batch(), frames) });\n        self.count = 0;\n        self.tables.flush(self.mem, start, end, self.reason);\n        self.start = usize::MAX;",
    ),
    race(
        "trees::stack_growth_and_mmap_cve_2023_3269",
        "race: a stack grows though another fault has grown it meanwhile",
        "mm/src/space/stack.rs",
        "            Some(vma) if vma.start() <= start => Ok(()),\n",
        "",
    ),
    race(
        "faults::fault_and_munmap",
        "race: munmap takes pages out under faults",
        "mm/src/space/munmap.rs",
        "            vmas.lock_vma(vma);\n",
        "",
    ),
    race(
        "moves::fault_and_move_of_a_table_cve_2022_41222",
        "race: who moves a VMA does not wait for the faults in it",
        "mm/src/sync/vma_lock.rs",
        "        if self.has_readers() {",
        "        if false {",
    ),
    race(
        "trees::detach_and_look_up_cve_2023_3269",
        "race: a VMA that has left the tree is taken for one",
        "mm/src/vma/index.rs",
        "vma.is_attached() && ",
        "",
    ),
    race(
        "walks::walk_and_move",
        "race: walkers are let in before the pages have moved",
        "mm/src/space/mremap/moving.rs",
        "            plan.commit_whole(&mut state.vmas, vma, walkers_out.as_ref());\n",
        "            plan.commit_whole(&mut state.vmas, vma, walkers_out.as_ref());\n            drop(walkers_out);\n",
    ),
    race(
        "walks::walk_and_relocation",
        "race: the anon_vma that pages leave is not locked",
        "mm/src/rmap/chain.rs",
        ".filter(|other| *other != root);",
        ".filter(|other| false && *other != root);",
    ),
    race(
        "walks::walk_and_relocation",
        "race: a walker does not look again whose the page is when it has the lock",
        "mm/src/rmap/walk.rs",
        "            if frame.mapping() != mapping || AnonVma::root(this) != root {",
        "            if false {",
    ),
    race(
        "walks::fault_and_relocation",
        "race: pages are looked at, and move, under faults",
        "mm/src/space/mremap/moving.rs",
        "        state.vmas.lock_vma(vma);\n        self.core.tables.split_ends(self.mem, mv.source);",
        "        self.core.tables.split_ends(self.mem, mv.source);",
    ),
    race(
        "walks::walk_and_exit",
        "race: a walker goes on without the lock while mappings go",
        "mm/src/rmap/walk.rs",
        "            let _lock = root.lock.read();\n            // Before",
        "            drop(root.lock.read());\n            // Before",
    ),
    race(
        "walks::walk_and_fork",
        "race: a walker goes on without the lock while mappings come",
        "mm/src/rmap/walk.rs",
        "            let _lock = root.lock.read();\n            // Before",
        "            drop(root.lock.read());\n            // Before",
    ),
    race(
        "walks::anon_vma_freed_and_walk",
        "race: a VMA that is found is taken for one that has the page",
        "mm/src/space/verify/machine.rs",
        "if entry.is_some_and(|entry| entry.is_counted() && entry.pfn_for(addr) == pfn) {",
        "if entry.is_some_and(|entry| entry.is_counted()) {",
    ),
    race(
        "reclaim::reclaim_and_write",
        "race: a page is stored that others can still write to",
        "mm/src/reclaim/withdraw.rs",
        "core.tables.flush_stale(self.mem, self.reason);",
        "let _ = core;",
    ),
    race(
        "reclaim::reclaim_and_munmap",
        "race: munmap forgets what is on its way to swap",
        "mm/src/space/zap.rs",
        "                    self.forget_absent(entry);\n",
        "",
    ),
    race(
        "reclaim::two_bring_a_page_back",
        "race: who brings a page back does not lock it",
        "mm/src/space/swap.rs",
        "let folio = record.folio_lock();",
        "let folio = drop(record.folio_lock());",
    ),
    race(
        "reclaim::reclaim_and_fork",
        "race: fork relies on a flush of reclaim's that is still to come",
        "mm/src/paging/gather.rs",
        "self.tables.flush_stale(self.mem, self.reason);",
        "",
    ),
    race(
        "reclaim::reclaim_and_fork",
        "race: an entry is empty for a moment on its way to swap",
        "mm/src/reclaim/withdraw.rs",
        "let mut old = slot.get();\n    loop {",
        "let mut old = slot.take();\n    slot.set(old);\n    loop {",
    ),
    race(
        "migration::migration_and_write",
        "race: a page is copied that others can still write to",
        "mm/src/migrate/mod.rs",
        "        self.withdrawals.flush();\n",
        "",
    ),
    race(
        "migration::migration_and_write_of_the_kernel",
        "race: a page is moved that the kernel is writing to",
        "mm/src/migrate/mod.rs",
        "|| old.refcount() != 1 {",
        "|| false {",
    ),
    race(
        "migration::migration_and_fork",
        "race: who moves a page looks for its mappings once",
        "mm/src/migrate/mod.rs",
        "        while old.migrating() != 0 {",
        "        if old.migrating() != 0 {",
    ),
    race(
        "migration::migration_and_munmap",
        "race: munmap does not say that it has discarded a migration entry",
        "mm/src/space/swap.rs",
        "            self.mem.frame(pfn).dec_migrating();\n",
        "",
    ),
    race(
        "migration::migration_and_mprotect",
        "race: mprotect leaves migration entries as they are",
        "mm/src/space/mprotect.rs",
        "    if old.migrating().is_some() {",
        "    if false && old.migrating().is_some() {",
    ),
    race(
        "migration::migration_and_move",
        "race: mremap leaves it to who moves pages to flush",
        "mm/src/paging/moves.rs",
        "self.flush_stale(mem, Event::FlushMove);",
        "",
    ),
    race(
        "migration::migration_and_relocation",
        "race: the new frame's record is made before relocation is kept out",
        "mm/src/migrate/mod.rs",
        "        while old.migrating() != 0 {\n            AnonVma::walk_page(old, |vma, addr| {\n                self.with_migration_entry(vma, addr, from, |slot| {\n                    new.set_mapping(old.mapping());\n                    new.set_index(old.index());\n",
        "        let (mapping, index) = (old.mapping(), old.index());\n        crate::sync::point();\n        while old.migrating() != 0 {\n            AnonVma::walk_page(old, |vma, addr| {\n                self.with_migration_entry(vma, addr, from, |slot| {\n                    new.set_mapping(mapping);\n                    new.set_index(index);\n",
    ),
    race(
        "migration::two_migrations",
        "race: a migration entry of another page is taken for one's own",
        "mm/src/reclaim/withdraw.rs",
        "&& slot.get().migrating() == Some(pfn)",
        "&& slot.get().migrating().is_some()",
    ),
];
