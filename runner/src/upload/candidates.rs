//! Which lists of parts may complete an object when some answers of the store are not known. Pure; used when an upload is
//! given up and by a salvage.

use spillway_storage::Part;

use super::parts::PartState;

/// Part lists a store may be asked to complete, the one that loses least first. Which one is right depends on requests
/// whose answer is not known: the store may have the newest bytes of a part, older ones, or none.
pub fn candidates(parts: &[PartState]) -> Vec<Vec<Part>> {
    /// A few more than four sendings at once can be the reason for; a refusal costs one small request.
    const MAX_LISTS: usize = 300;
    let mut lists: Vec<Vec<Part>> = vec![vec![]];
    let mut ready: Vec<Vec<Part>> = vec![];
    for (index, state) in parts.iter().enumerate() {
        let number = index as u32 + 1;
        // A sending of the bytes that were acknowledged changes nothing, whenever it arrives.
        let acked = state.acked.as_ref().map(|part| &part.tag);
        let known: Vec<Part> = state
            .pending
            .iter()
            .rev()
            .filter(|pending| pending.tag.as_ref() != acked)
            .filter_map(|pending| Some(Part { number, generation: pending.generation, tag: pending.tag.clone()? }))
            .chain(state.acked.clone())
            .collect();
        let is_whole = |part: &Part| state.end == Some(state.start + part.tag.bytes);
        // Everything so far could be all there is, if this part's fate is open.
        if state.acked.is_none() || known.len() > 1 {
            ready.extend(lists.iter().cloned());
        }
        let mut longer = vec![];
        for list in lists.drain(..) {
            for part in &known {
                let mut list = list.clone();
                list.push(part.clone());
                // Behind a shorter part nothing can stand.
                if is_whole(part) { longer.push(list) } else { ready.push(list) }
            }
        }
        lists = longer;
        if lists.is_empty() {
            break;
        }
        lists.truncate(MAX_LISTS);
    }
    ready.extend(lists);
    ready.retain(|list| !list.is_empty());
    let bytes = |list: &Vec<Part>| list.iter().map(|part| part.tag.bytes).sum::<u64>();
    // Of equally long ones the newest bytes are likelier to be there.
    let newest = |list: &Vec<Part>| list.iter().map(|part| u64::from(part.generation)).sum::<u64>();
    ready.sort_by_key(|list| std::cmp::Reverse((bytes(list), newest(list))));
    ready.dedup();
    ready.truncate(MAX_LISTS);
    ready
}
