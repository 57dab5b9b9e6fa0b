    -- Included where orders are searched. An empty filter filters nothing.
    (empty({ids:Array(String)}) OR has({ids:Array(String)}, order_id))
    AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, status))
    AND ({number:String} = '' OR number = {number:String})
    AND ({customer_id:String} = '' OR customer_id = {customer_id:String})
    AND ({sku:String} = '' OR has(skus, {sku:String}))
    AND ({product:String} = '' OR arrayExists(name -> positionCaseInsensitiveUTF8(name, {product:String}) > 0, names))
    AND ({promo_code:String} = '' OR has(promo_codes, {promo_code:String}))
    AND ({tracking_number:String} = '' OR has(tracking_numbers, {tracking_number:String}))
    AND ({country:String} = '' OR country = {country:String})
    AND ({currency:String} = '' OR currency = {currency:String})
    AND total BETWEEN {total_min:Int64} AND {total_max:Int64}
    AND created_at >= fromUnixTimestamp64Micro({created_from:Int64}, 'UTC')
    AND created_at < fromUnixTimestamp64Micro({created_to:Int64}, 'UTC')
    AND updated_at >= fromUnixTimestamp64Micro({updated_from:Int64}, 'UTC')
    AND updated_at < fromUnixTimestamp64Micro({updated_to:Int64}, 'UTC')
    AND (NOT {only_submitted:Bool} OR ifNull(
            submitted_at >= fromUnixTimestamp64Micro({submitted_from:Int64}, 'UTC')
            AND submitted_at < fromUnixTimestamp64Micro({submitted_to:Int64}, 'UTC'), false))
