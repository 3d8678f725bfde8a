import { expect, it } from 'vitest'
import { isAllExact, sureParts } from './sureness'

const COSTS = { exact: 0, repaired: 0, lower_bound: 0, estimated: 0 }
const COUNTS = { exact: 0, repaired: 0, lower_bound: 0, estimated: 0, unpriced: 0 }

it('names only what there is, the surest first', () => {
  const parts = sureParts({ ...COSTS, exact: 1.2, lower_bound: 0.034, estimated: 0.5 }, { ...COUNTS, exact: 3, lower_bound: 1 })
  expect(parts.map((part) => part.text)).toEqual(['$1.20 exact', '$0.0340 at least', '$0.50 estimated'])
})

it('says all exact only where nothing is unpriced or unsure', () => {
  expect(isAllExact({ ...COSTS, exact: 1 }, { ...COUNTS, exact: 2 })).toBe(true)
  expect(isAllExact({ ...COSTS, exact: 1 }, { ...COUNTS, exact: 2, unpriced: 1 })).toBe(false)
  expect(isAllExact({ ...COSTS, exact: 1, repaired: 0.1 }, { ...COUNTS, exact: 2, repaired: 1 })).toBe(false)
  expect(isAllExact(COSTS, COUNTS)).toBe(true)
})
