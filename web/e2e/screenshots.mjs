// docs/screenshots: both pages, light and dark, wide and narrow, full and empty. Written only with SCREENSHOTS=1; with the
// real server they show its demo fleet.

import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openPage, until } from './browser.mjs'
import { startDemo } from './server.mjs'

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'docs', 'screenshots')

export const screenshots = {
  name: 'screenshots',
  async run({ browser, server, page }) {
    mkdirSync(folder, { recursive: true })
    await page.goto(`${server.url}/live`)
    await page.waitForSelector('[data-testid=empty]')
    await page.screenshot({ path: join(folder, 'live-empty-light-1440.png') })
    await page.close()
    if (server.isMock) server.store.seed()
    const shown = server.isMock ? server : await startDemo(process.env.TAFFRAIL_BIN)
    // The demo first makes its history; a little later there is something on both pages.
    if (!server.isMock) await new Promise((resolve) => setTimeout(resolve, 20_000))
    for (const colorScheme of ['light', 'dark']) {
      for (const width of [1440, 390]) {
        const { context, page: shot } = await openPage(browser, { colorScheme, viewport: { width, height: width === 390 ? 844 : 900 } })
        await shot.goto(await shown.link())
        await shot.setViewportSize({ width, height: width === 390 ? 2560 : 1230 })
        await shot.goto(shown.url)
        await shot.waitForSelector('.uplot canvas')
        await until('live', async () => (await shot.textContent('[data-testid=connection]')).includes('Live'))
        await shot.screenshot({ path: join(folder, `overview-${colorScheme}-${width}.png`) })
        await shot.setViewportSize({ width, height: width === 390 ? 844 : 900 })
        await shot.goto(`${shown.url}/live`)
        await shot.locator('button.row[data-status=succeeded]').first().click()
        await shot.waitForSelector('[data-testid=payload]')
        await shot.mouse.move(5, 400)
        await shot.screenshot({ path: join(folder, `live-${colorScheme}-${width}.png`) })
        await context.close()
      }
    }
    if (shown !== server) await shown.dispose()
  },
}
