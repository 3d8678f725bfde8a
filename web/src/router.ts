// Pages and their addresses. The rail is made from `pages`: a later page adds one entry here.

import { Activity, Gauge } from '@lucide/vue'
import type { Component } from 'vue'
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'
import LivePage from './pages/LivePage.vue'
import NotFoundPage from './pages/NotFoundPage.vue'
import OverviewPage from './pages/OverviewPage.vue'
import { texts } from './texts'

export interface PageEntry {
  readonly name: string
  readonly path: string
  readonly title: string
  readonly icon: Component
  /** The single key that opens it. */
  readonly key: string
  /** Loaded with the page, not on demand: a page must open, and say what is wrong, while the server is away. */
  readonly view: Component
}

export const pages: readonly PageEntry[] = [
  { name: 'overview', path: '/', title: texts.nav.overview, icon: Gauge, key: 'o', view: OverviewPage },
  { name: 'live', path: '/live', title: texts.nav.live, icon: Activity, key: 'l', view: LivePage },
]

const routes: RouteRecordRaw[] = pages.map(({ name, path, view }) => ({ name, path, component: view }))
routes.push({ path: '/:path(.*)*', name: 'not-found', component: NotFoundPage })

export const router = createRouter({ history: createWebHistory(), routes })

router.afterEach((to) => {
  const page = pages.find((entry) => entry.name === to.name)
  document.title = page === undefined ? texts.product : `${page.title} · ${texts.product}`
})
