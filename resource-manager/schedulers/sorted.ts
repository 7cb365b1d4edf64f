// Lists that stay in order while what is in them changes: a place is found by halving, and nothing is
// ever sorted or copied as a whole.

/** Where the first one is that is not before what is looked for, or the end of the list. */
export function placeIn<T>(list: readonly T[], isBefore: (one: T) => boolean): number {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (isBefore(list[middle]!)) low = middle + 1
    else high = middle
  }
  return low
}

/** Takes ids out of an ascending list, as far as they are in it. */
export function takeOut(list: number[], ids: Iterable<number>): void {
  for (const id of ids) {
    const place = placeIn(list, (one) => one < id)
    if (list[place] === id) list.splice(place, 1)
  }
}

/** Puts ids into an ascending list, as far as they are not in it. */
export function putIn(list: number[], ids: Iterable<number>): void {
  for (const id of ids) {
    const place = placeIn(list, (one) => one < id)
    if (list[place] !== id) list.splice(place, 0, id)
  }
}
