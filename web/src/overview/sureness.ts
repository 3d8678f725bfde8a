// How sure a cost is, in words: one part for each kind that there is, the surest first.

import type { ConfidenceCostsJson, ConfidenceCountsJson } from '../api/types'
import { usd } from '../lib/format'
import { texts } from '../texts'

export interface SurePart {
  readonly kind: keyof ConfidenceCostsJson
  readonly text: string
  readonly hint: string
}

const KINDS = ['exact', 'repaired', 'lower_bound', 'estimated'] as const

/** The parts of a cost that are differently sure; `$1.20 exact` each. */
export function sureParts(costs: ConfidenceCostsJson, counts: ConfidenceCountsJson): SurePart[] {
  const there = KINDS.filter((kind) => counts[kind] > 0 || costs[kind] !== 0)
  return there.map((kind) => ({ kind, text: `${usd(costs[kind])} ${texts.sureness[kind].name}`, hint: texts.sureness[kind].hint }))
}

/** Whether every request is priced from final usage. */
export function isAllExact(costs: ConfidenceCostsJson, counts: ConfidenceCountsJson): boolean {
  return counts.unpriced === 0 && sureParts(costs, counts).every((part) => part.kind === 'exact')
}
