-- Sends every photograph of an eye that arrives to the worker, once, by C-STORE. Other bundles take other modalities.
local WANTED = { OP = true }

function OnStoredInstance(instance, tags, metadata, origin)
   -- what the worker itself has sent is never sent back
   if origin["RemoteAet"] ~= "SEGMENTER" and WANTED[tags["Modality"]] then
      SendToModality(instance, "segmenter")
   end
end
