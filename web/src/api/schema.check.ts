// Holds types.ts against the schema that the server prints: a field that is missing, misnamed or of another type on either
// side fails the type check. types.ts says more than the schema can (null or absent, what an untyped value may be), so it is
// not replaced by it. Nothing here reaches the built page.

import type { components } from './schema'
import type * as mine from './types'

type Schemas = components['schemas']

/** Shapes by the name that both sides give them. */
interface Mine {
  AgentJson: mine.AgentJson
  CallJson: mine.CallJson
  ConfidenceCostsJson: mine.ConfidenceCostsJson
  ConfidenceCountsJson: mine.ConfidenceCountsJson
  CostFrameJson: mine.CostFrameJson
  CostJson: mine.CostJson
  CostRowJson: mine.CostRowJson
  CostStepJson: mine.CostStepJson
  CostsJson: mine.CostsJson
  CostTotalsJson: mine.CostTotalsJson
  ErrorJson: mine.ErrorJson
  ErrorsJson: mine.ErrorsJson
  EventJson: mine.EventJson
  FacetJson: mine.FacetJson
  FileOperationJson: mine.FileOperationJson
  FileOperationsJson: mine.FileOperationsJson
  FiltersJson: mine.FiltersJson
  GitJson: mine.GitJson
  GitOperationJson: mine.GitOperationJson
  MemoryJson: mine.MemoryJson
  MemoryUsageJson: mine.MemoryUsageJson
  MetricsJson: mine.MetricsJson
  PerformanceJson: mine.PerformanceJson
  QualityJson: mine.QualityJson
  QuantilesJson: mine.QuantilesJson
  SessionCostJson: mine.SessionCostJson
  SessionFacetJson: mine.SessionFacetJson
  SessionsJson: mine.SessionsJson
  StepJson: mine.StepJson
  SummaryJson: mine.SummaryJson
  TokensJson: mine.TokensJson
  TokenUsageJson: mine.TokenUsageJson
  ToolChainJson: mine.ToolChainJson
  ToolJson: mine.ToolJson
  UnpricedModelJson: mine.UnpricedModelJson
  WarningJson: mine.WarningJson
  WindowJson: mine.WindowJson
}

/** Values that the schema does not type; mine are `Json`. */
type Untyped = 'payload' | 'issues'

type SameKeys<A, B> = [keyof A] extends [keyof B] ? ([keyof B] extends [keyof A] ? true : Exclude<keyof B, keyof A>) : Exclude<keyof A, keyof B>
type Fits<A, B> = { [K in Exclude<keyof A & keyof B, Untyped>]: A[K] extends B[K] ? never : K }[Exclude<keyof A & keyof B, Untyped>]
type Wrong = { [N in keyof Mine]: N extends keyof Schemas ? (SameKeys<Mine[N], Schemas[N]> extends true ? ([Fits<Mine[N], Schemas[N]>] extends [never] ? never : [N, Fits<Mine[N], Schemas[N]>]) : [N, SameKeys<Mine[N], Schemas[N]>]) : [N, 'is not in the schema'] }[keyof Mine]

/** Names what differs, if anything does. */
type Check<T extends never> = T
export type Checked = Check<Wrong>
