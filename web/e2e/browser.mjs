// Chromium for the tests, and the helpers that every test uses.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export async function launch() {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  return chromium.launch({ executablePath, args: FLAGS, handleSIGINT: true })
}

/** A fresh profile with a page that remembers what went wrong in it. */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'light', timezoneId: 'Europe/Berlin', permissions: ['clipboard-read', 'clipboard-write'], ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(8_000)
  const complaints = []
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(`uncaught: ${error.message}`))
  return { context, page, complaints }
}

/** Serious and critical violations, as short texts. The policy forbids injected scripts, so axe runs in an isolated world. */
export async function violations(page) {
  const client = await page.context().newCDPSession(page)
  const { frameTree } = await client.send('Page.getFrameTree')
  const { executionContextId } = await client.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id, worldName: 'axe' })
  await client.send('Runtime.evaluate', { expression: axeSource, contextId: executionContextId })
  const expression = `axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((r) => JSON.stringify(r.violations.filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => v.id + ': ' + v.help + ' at ' + v.nodes.slice(0, 3).map((n) => n.target + ' ' + n.html.slice(0, 120) + ' ' + (n.any[0]?.message ?? '')).join(' | '))))`
  const { result, exceptionDetails } = await client.send('Runtime.evaluate', { expression, contextId: executionContextId, awaitPromise: true })
  await client.detach()
  if (exceptionDetails) throw new Error(exceptionDetails.text)
  return JSON.parse(result.value)
}

/** Waits until `check` gives something truthy; its last failure tells why it never did. */
export async function until(what, check, limitMs = 8_000) {
  const deadline = Date.now() + limitMs
  let last
  while (Date.now() < deadline) {
    try {
      const value = await check()
      if (value) return value
      last = undefined
    } catch (error) {
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, 40))
  }
  throw new Error(`${what}: not within ${limitMs} ms${last ? ` (${last.message})` : ''}`)
}

/** The rows in the document, newest first. */
export async function rows(page) {
  return page.$$eval('[data-testid=rows] button.row', (buttons) =>
    buttons.map((button) => ({ key: button.dataset.key, status: button.dataset.status, type: button.dataset.type, text: button.innerText.replace(/\s+/g, ' ').trim(), what: button.querySelector('.what').innerText, took: button.querySelector('.took').innerText, app: button.querySelector('.app').textContent, summary: button.querySelector('.summary').innerText })),
  )
}
