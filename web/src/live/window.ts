// Which rows of a long list are on the screen. Rows have one height; opened rows add the height of their detail below them.
//
// Written here instead of taken from a library because of that one height: places are arithmetic over the few opened rows,
// so 100,000 rows cost the same as 100, and rows that come in above do not make anything be measured again.

/** An opened row: its index and the height of its detail, in pixels. */
export interface Opened {
  readonly index: number
  readonly height: number
}

export interface ListShape {
  readonly count: number
  readonly rowHeight: number
  /** By index, ascending. */
  readonly opened: readonly Opened[]
}

export interface RowRange {
  /** First row, and one past the last. */
  readonly first: number
  readonly end: number
  /** Space above the first and below the last, in pixels. */
  readonly above: number
  readonly below: number
}

export function totalHeight(shape: ListShape): number {
  return shape.opened.reduce((height, row) => height + row.height, shape.count * shape.rowHeight)
}

/** The top of the row, in pixels. */
export function offsetOf(shape: ListShape, index: number): number {
  let offset = index * shape.rowHeight
  for (const row of shape.opened) {
    if (row.index >= index) break
    offset += row.height
  }
  return offset
}

/** The row (its detail included) at that height, within the list. */
export function indexAt(shape: ListShape, y: number): number {
  let detail = 0
  for (const row of shape.opened) {
    const bottomOfRow = (row.index + 1) * shape.rowHeight + detail
    if (y < bottomOfRow) break
    if (y < bottomOfRow + row.height) return row.index
    detail += row.height
  }
  const index = Math.floor((y - detail) / shape.rowHeight)
  return Math.max(0, Math.min(shape.count - 1, index))
}

/** The rows between `top` and `top + height`, and `spare` more on either side. */
export function rangeAt(shape: ListShape, top: number, height: number, spare: number): RowRange {
  if (shape.count === 0) return { first: 0, end: 0, above: 0, below: 0 }
  const first = Math.max(0, indexAt(shape, top) - spare)
  const end = Math.min(shape.count, indexAt(shape, top + height) + 1 + spare)
  return { first, end, above: offsetOf(shape, first), below: Math.max(0, totalHeight(shape) - offsetOf(shape, end)) }
}
