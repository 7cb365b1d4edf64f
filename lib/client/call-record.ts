// Where in the invoker's records of 32-bit words the fields lie: one request, outcomes, and a queue of
// requests; runs of records, and turns. Constants of this module and not fields of an object, because a
// call writes ten of them.
import { native } from '../native.js'

const { callRecord, outcomeRecord, queueRoom, runRecord, turnRecord } = native.constants

const word = (layout: { size: number }, offset: number): number => {
  if (offset % 4 !== 0 || offset >= layout.size) throw new RangeError('a record is not of words')
  return offset / 4
}

export const iWorker = word(callRecord, callRecord.worker)
export const iSlot = word(callRecord, callRecord.slot)
export const iFunction = word(callRecord, callRecord.function)
export const iInputRegion = word(callRecord, callRecord.inputRegion)
export const iInputOffset = word(callRecord, callRecord.inputOffset)
export const iInputLength = word(callRecord, callRecord.inputLength)
export const iOutputRegion = word(callRecord, callRecord.outputRegion)
export const iOutputOffset = word(callRecord, callRecord.outputOffset)
export const iOutputCapacity = word(callRecord, callRecord.outputCapacity)
export const iTimeout = word(callRecord, callRecord.timeoutUs)
export const iAlone = word(callRecord, callRecord.alone)
export const iPatience = word(callRecord, callRecord.patienceUs)
export const iResultLength = word(callRecord, callRecord.resultLength)
export const iOutcomes = word(callRecord, callRecord.outcomes)
export const iHold = word(callRecord, callRecord.hold)
export const iQueued = word(callRecord, callRecord.queued)
export const iQueue = word(callRecord, callRecord.queue)

/** Words of one request in the queue; its fields lie as they do from the record's begin. */
export const requestWords = (callRecord.size / 4 - iQueue) / queueRoom

/** Words of one outcome, and its fields from its begin. */
export const outcomeWords = outcomeRecord.size / 4
export const oWorker = word(outcomeRecord, outcomeRecord.worker)
export const oSlot = word(outcomeRecord, outcomeRecord.slot)
export const oStatus = word(outcomeRecord, outcomeRecord.status)
export const oLength = word(outcomeRecord, outcomeRecord.length)

/** Words of a run of records, and its fields. */
export const runWords = runRecord.size / 4
export const rNext = word(runRecord, runRecord.next)
export const rCount = word(runRecord, runRecord.count)
export const rFunction = word(runRecord, runRecord.function)
export const rTimeout = word(runRecord, runRecord.timeoutUs)
export const rInputRegion = word(runRecord, runRecord.inputRegion)
export const rInputOffset = word(runRecord, runRecord.inputOffset)
export const rInputBytes = word(runRecord, runRecord.inputBytes)
export const rOutputRegion = word(runRecord, runRecord.outputRegion)
export const rOutputOffset = word(runRecord, runRecord.outputOffset)
export const rOutputBytes = word(runRecord, runRecord.outputBytes)

/** Words of a slot's turn, and its fields from its begin. */
export const turnWords = turnRecord.size / 4
export const tRun = word(turnRecord, turnRecord.run)
export const tRecord = word(turnRecord, turnRecord.record)
