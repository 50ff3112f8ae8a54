// Which tokens of one text have no counterpart in another: all that are not in their longest common subsequence.

const MOST_CELLS = 4_000_000; // of the table; beyond it everything between the common ends counts as different

/** The places in `right` that `left` has not, as a Set. */
export function differingPlaces(left, right) {
  const least = Math.min(left.length, right.length);
  let start = 0;
  while (start < least && left[start] === right[start]) start += 1;
  let end = 0;
  while (end < least - start && left[left.length - 1 - end] === right[right.length - 1 - end]) end += 1;
  const common = commonPlaces(left.slice(start, left.length - end), right.slice(start, right.length - end));
  const places = new Set();
  for (let place = start; place < right.length - end; place += 1) {
    if (!common.has(place - start)) places.add(place);
  }
  return places;
}

function commonPlaces(left, right) {
  const common = new Set();
  const width = right.length + 1;
  if ((left.length + 1) * width > MOST_CELLS) return common;
  const lengths = new Uint16Array((left.length + 1) * width); // of what the rests from here have in common
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      lengths[at] = left[i] === right[j] ? lengths[at + width + 1] + 1 : Math.max(lengths[at + width], lengths[at + 1]);
    }
  }
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    const at = i * width + j;
    if (left[i] === right[j]) {
      common.add(j);
      i += 1;
      j += 1;
    } else if (lengths[at + width] >= lengths[at + 1]) i += 1;
    else j += 1;
  }
  return common;
}
