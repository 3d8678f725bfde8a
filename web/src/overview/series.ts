// The history of a summary as columns for the charts: seconds and values, gaps where nothing was measured.

import type { StepJson } from '../api/types'

export interface Series {
  readonly label: string
  /** The token that colours it. */
  readonly color: string
  readonly values: readonly (number | null)[]
  /** Filled bars or a line. */
  readonly draw: 'bars' | 'line'
}

export function times(history: readonly { t_ms: number }[]): number[] {
  return history.map((step) => step.t_ms / 1000)
}

export function column(history: readonly StepJson[], key: Exclude<keyof StepJson, 't_ms'>): (number | null)[] {
  return history.map((step) => step[key])
}

/** An SVG path of a sparkline in a box of the given size; gaps break the line. */
export function sparkPath(values: readonly (number | null)[], width: number, height: number): string {
  const most = Math.max(1e-9, ...values.map((value) => value ?? 0))
  const step = values.length > 1 ? width / (values.length - 1) : 0
  let path = ''
  let pen = false
  values.forEach((value, i) => {
    if (value === null) {
      pen = false
      return
    }
    path += `${pen ? 'L' : 'M'}${round(i * step)} ${round(height - (value / most) * height)}`
    pen = true
  })
  return path
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
