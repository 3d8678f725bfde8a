import { describe, expect, it } from 'vitest'
import { indexAt, type ListShape, offsetOf, rangeAt, totalHeight } from './window'

const plain: ListShape = { count: 100_000, rowHeight: 30, opened: [] }
const opened: ListShape = { count: 10, rowHeight: 30, opened: [{ index: 2, height: 100 }, { index: 5, height: 50 }] }

describe('places', () => {
  it('adds the details that are open', () => {
    expect(totalHeight(opened)).toBe(450)
    expect([0, 2, 3, 5, 6].map((index) => offsetOf(opened, index))).toEqual([0, 60, 190, 250, 330])
  })

  it('finds the row at every pixel', () => {
    for (let y = 0; y < totalHeight(opened); y += 1) {
      const index = indexAt(opened, y)
      expect(offsetOf(opened, index)).toBeLessThanOrEqual(y)
      if (index + 1 < opened.count) expect(offsetOf(opened, index + 1)).toBeGreaterThan(y)
    }
  })
})

describe('the range', () => {
  it('is the screen and the spare rows, whatever the length', () => {
    const range = rangeAt(plain, 1_500_000, 600, 10)
    expect(range).toEqual({ first: 49_990, end: 50_031, above: 49_990 * 30, below: (100_000 - 50_031) * 30 })
  })
  it('keeps the height of the list', () => {
    for (const top of [0, 15, 70, 200, 449]) {
      const range = rangeAt(opened, top, 60, 1)
      expect(range.above + (offsetOf(opened, range.end) - offsetOf(opened, range.first)) + range.below).toBe(450)
    }
  })
  it('is empty for an empty list', () => expect(rangeAt({ ...plain, count: 0 }, 0, 600, 10)).toEqual({ first: 0, end: 0, above: 0, below: 0 }))
})
